-- Version 4 of the schema `palisade`: streams of effects. Sequences, cursors, versions, inbox, outbox and dead
-- letters, each written in the transaction of the effect itself.
--
-- Every function that writes asks for the good entry of the resource in this transaction (enter, check): a
-- stale holder moves nothing here, whatever else its transaction writes. Writers have no right on the tables.
-- A function raises where its caller could otherwise go on with a wrong belief.

-- The token of this transaction's good entry for the resource; raises without one.
CREATE FUNCTION palisade.acting(resource text) RETURNS bigint
    LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT (palisade.admitted(resource))[4]::bigint
$$;

-- Positions are exact in JSON and JavaScript: below 2^53.
CREATE DOMAIN palisade.position AS bigint CHECK (VALUE BETWEEN 0 AND 9007199254740991);
CREATE DOMAIN palisade.name AS text COLLATE "C"
    CHECK (octet_length(VALUE) BETWEEN 1 AND 255 AND VALUE !~ '[\x01-\x1f\x7f]');

CREATE FUNCTION palisade.mismatch(
    code text, resource text, presented bigint, name text, expected bigint, was bigint
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '%: expected %, found %', name, expected, was
        USING ERRCODE = code, DETAIL = json_build_object('resource', resource, 'presented', presented,
            'fence', presented, 'name', name, 'expected', expected,
            CASE code WHEN 'ZF005' THEN 'got' ELSE 'found' END, was)::text,
        HINT = CASE code WHEN 'ZF005' THEN 'Send again from the expected number on.'
            ELSE 'Somebody has moved it meanwhile. Roll back, read it again, and decide anew.' END;
END $$;

CREATE TABLE palisade.sequence (
    resource text COLLATE "C" NOT NULL,
    producer palisade.name NOT NULL,
    token bigint NOT NULL,
    last bigint NOT NULL CHECK (last BETWEEN -1 AND 9007199254740991),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (resource, producer)
);
COMMENT ON TABLE palisade.sequence IS
    'The last number accepted from each producer, and under which token. Without a row its numbers count anew.';

CREATE FUNCTION palisade.sequence_of(resource text, producer text, mine bigint) RETURNS palisade.sequence
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    was palisade.sequence;
BEGIN
    FOR attempt IN 1..2 LOOP
        SELECT * INTO was FROM palisade.sequence AS s
            WHERE s.resource = sequence_of.resource COLLATE "C"
            AND s.producer = sequence_of.producer COLLATE "C" FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO palisade.sequence (resource, producer, token, last)
            VALUES (sequence_of.resource, sequence_of.producer, mine, -1) ON CONFLICT DO NOTHING;
    END LOOP;
    IF mine < was.token THEN
        PERFORM palisade.refuse('stale', resource, mine, was.token, NULL, NULL);
    END IF;
    RETURN was;
END $$;

-- The rule is effects::sequence::decide of the library; a test holds the two against each other.
CREATE FUNCTION palisade.accept(resource text, producer text, number palisade.position) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mine bigint := palisade.acting(resource);
    at palisade.sequence := palisade.sequence_of(resource, producer, mine);
BEGIN
    IF number IS NULL THEN
        RAISE EXCEPTION 'a number is needed' USING ERRCODE = 'null_value_not_allowed';
    ELSIF number <= at.last THEN
        RETURN 'duplicate';
    ELSIF number <> at.last + 1 THEN
        PERFORM palisade.mismatch('ZF005', resource, mine, producer, at.last + 1, number);
    END IF;
    UPDATE palisade.sequence AS s SET last = number, token = mine, changed_at = clock_timestamp()
        WHERE s.resource = accept.resource COLLATE "C" AND s.producer = accept.producer COLLATE "C";
    RETURN 'applied';
END $$;
COMMENT ON FUNCTION palisade.accept(text, text, palisade.position) IS
    'applied or duplicate; raises ZF005 for a gap. Numbers start at 0 and go on over takeovers.';

CREATE FUNCTION palisade.restart_sequence(resource text, producer text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mine bigint := palisade.acting(resource);
    at palisade.sequence := palisade.sequence_of(resource, producer, mine);
BEGIN
    IF mine > at.token THEN
        UPDATE palisade.sequence AS s SET last = -1, token = mine, changed_at = clock_timestamp()
            WHERE s.resource = restart_sequence.resource COLLATE "C"
            AND s.producer = restart_sequence.producer COLLATE "C";
        RETURN 0;
    END IF;
    RETURN at.last + 1;
END $$;
COMMENT ON FUNCTION palisade.restart_sequence(text, text) IS
    'Forgets the numbers of earlier tokens; under the token that did it before, nothing. Returns the next number.';

CREATE FUNCTION palisade.last_sequence(resource text, producer text)
    RETURNS TABLE (token bigint, last bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.token, s.last FROM palisade.sequence AS s
        WHERE s.resource = last_sequence.resource COLLATE "C"
        AND s.producer = last_sequence.producer COLLATE "C" AND s.last >= 0
$$;

-- Cursors and versions: one number of a name, moved by whoever knows where it is.
CREATE TABLE palisade.mark (
    kind "char" NOT NULL CHECK (kind IN ('c', 'v')),
    resource text COLLATE "C" NOT NULL,
    name palisade.name NOT NULL,
    at palisade.position NOT NULL,
    token bigint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, resource, name)
);
COMMENT ON TABLE palisade.mark IS 'Offsets of consumers (c) and versions of entities (v). No row is 0.';

CREATE FUNCTION palisade.move(
    kind "char", resource text, name text, mine bigint, expected bigint, next palisade.position
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    was palisade.mark;
BEGIN
    IF expected IS NULL OR next IS NULL OR next <= expected OR expected < 0 THEN
        RAISE EXCEPTION '% moves forward from a position of 0 or more: not from % to %', name, expected, next
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR attempt IN 1..2 LOOP
        SELECT * INTO was FROM palisade.mark AS m WHERE m.kind = move.kind
            AND m.resource = move.resource COLLATE "C" AND m.name = move.name COLLATE "C" FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO palisade.mark (kind, resource, name, at, token)
            VALUES (move.kind, move.resource, move.name, 0, mine) ON CONFLICT DO NOTHING;
    END LOOP;
    IF mine < was.token THEN
        PERFORM palisade.refuse('stale', resource, mine, was.token, NULL, NULL);
    ELSIF was.at <> expected THEN
        PERFORM palisade.mismatch(CASE kind WHEN 'c' THEN 'ZF006' ELSE 'ZF007' END,
            resource, mine, name, expected, was.at);
    END IF;
    UPDATE palisade.mark AS m SET at = next, token = mine, changed_at = clock_timestamp()
        WHERE m.kind = move.kind AND m.resource = move.resource COLLATE "C"
        AND m.name = move.name COLLATE "C";
END $$;

CREATE FUNCTION palisade.advance_offset(
    resource text, cursor text, expected bigint, next palisade.position
) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT palisade.move('c', resource, cursor, palisade.acting(resource), expected, next)
$$;
COMMENT ON FUNCTION palisade.advance_offset(text, text, bigint, palisade.position) IS
    'Moves the offset of a consumer in the transaction of its effects; raises ZF006 unless it is where expected.';

CREATE FUNCTION palisade.expect_version(resource text, entity text, expected bigint) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT palisade.move('v', resource, entity, palisade.acting(resource), expected,
        (expected + 1)::palisade.position);
    SELECT expected + 1
$$;
COMMENT ON FUNCTION palisade.expect_version(text, text, bigint) IS
    'Raises ZF007 unless the entity has this version, and gives it the next one, which it returns.';

CREATE FUNCTION palisade.position_of(kind "char", resource text, name text) RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT m.at::bigint FROM palisade.mark AS m WHERE m.kind = position_of.kind
        AND m.resource = position_of.resource COLLATE "C" AND m.name = position_of.name COLLATE "C"), 0)
$$;

CREATE TABLE palisade.inbox (
    consumer palisade.name NOT NULL,
    message palisade.name NOT NULL,
    resource text COLLATE "C" NOT NULL,
    token bigint NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, message)
);
CREATE INDEX inbox_by_age ON palisade.inbox (received_at);
COMMENT ON TABLE palisade.inbox IS 'The messages that each consumer has handled; purge_flow forgets old ones.';

CREATE TABLE palisade.inbox_origin (
    consumer palisade.name NOT NULL,
    origin text COLLATE "C" NOT NULL CHECK (octet_length(origin) BETWEEN 1 AND 256),
    token bigint NOT NULL CHECK (token > 0),
    PRIMARY KEY (consumer, origin)
);
COMMENT ON TABLE palisade.inbox_origin IS
    'The greatest token of each origin that a consumer has seen: a fence, so it is never lowered or purged.';

-- Attempts of a consumer that have failed; their number ends in a dead letter.
CREATE TABLE palisade.failure (
    consumer palisade.name NOT NULL,
    message palisade.name NOT NULL,
    attempts integer NOT NULL,
    errors text[] NOT NULL,
    first_attempt_at timestamptz NOT NULL,
    last_attempt_at timestamptz NOT NULL,
    PRIMARY KEY (consumer, message)
);
CREATE INDEX failure_by_age ON palisade.failure (last_attempt_at);

CREATE FUNCTION palisade.inbox(
    resource text, consumer text, message text, origin text DEFAULT NULL, origin_token bigint DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mine bigint := palisade.acting(resource);
    newest bigint;
BEGIN
    IF origin IS NOT NULL THEN
        -- Locks the row even where it changes nothing: a later token waits for this transaction to end.
        INSERT INTO palisade.inbox_origin AS o (consumer, origin, token)
            VALUES (inbox.consumer, inbox.origin, origin_token)
            ON CONFLICT ON CONSTRAINT inbox_origin_pkey DO UPDATE SET token = excluded.token
                WHERE o.token < excluded.token;
        SELECT o.token INTO newest FROM palisade.inbox_origin AS o
            WHERE o.consumer = inbox.consumer COLLATE "C" AND o.origin = inbox.origin COLLATE "C";
        IF origin_token < newest THEN
            RETURN 'late';
        END IF;
    END IF;
    INSERT INTO palisade.inbox (consumer, message, resource, token)
        VALUES (inbox.consumer, inbox.message, inbox.resource, mine) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 'seen';
    END IF;
    DELETE FROM palisade.failure AS f
        WHERE f.consumer = inbox.consumer COLLATE "C" AND f.message = inbox.message COLLATE "C";
    RETURN 'new';
END $$;
COMMENT ON FUNCTION palisade.inbox(text, text, text, text, bigint) IS
    'new: handle it in this transaction; seen, or late (a later token of its origin was seen): skip it.';

REVOKE ALL ON FUNCTION palisade.acting, palisade.mismatch, palisade.sequence_of, palisade.accept,
    palisade.restart_sequence, palisade.last_sequence, palisade.move, palisade.advance_offset,
    palisade.expect_version, palisade.position_of, palisade.inbox FROM PUBLIC;
