-- Version 3 of the schema `palisade`: effects that are applied once.
--
-- A row of palisade.effect is in one of three states:
--     answer IS NULL, attempt_until IS NULL   claimed, or being finished, by a transaction that still runs: never
--                                             committed so; attempt is 0 if it is claimed for that one only
--     answer IS NULL, attempt_until given     an attempt: begun, committed, not finished; never purged
--     answer given                            done: replayed, and purged after keep_until
-- The key is (tenant, operation, key), without a token: a retry after a takeover finds the same row.
-- All names of columns stand before those of parameters in these functions; a parameter is qualified.

CREATE TABLE palisade.effect (
    tenant text COLLATE "C" NOT NULL
        CONSTRAINT effect_tenant_is_a_name CHECK (tenant ~ '^[!-~]{1,128}$'),
    operation text COLLATE "C" NOT NULL
        CONSTRAINT effect_operation_is_a_name CHECK (operation ~ '^[!-~]{1,64}$'),
    key text COLLATE "C" NOT NULL
        CONSTRAINT effect_key_is_a_key CHECK (key ~ '^[!-~]{1,255}$'),
    fingerprint bytea NOT NULL
        CONSTRAINT effect_fingerprint_is_one CHECK (octet_length(fingerprint) BETWEEN 2 AND 65),
    first_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    keep_until timestamptz NOT NULL,
    answer text
        CONSTRAINT effect_answer_is_small CHECK (octet_length(answer) <= 65536),
    -- Who did it, or is about to. Of a done effect nobody compares them.
    resource text COLLATE "C" NOT NULL,
    token bigint NOT NULL,
    holder text COLLATE "C" NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    attempt_until timestamptz,
    PRIMARY KEY (tenant, operation, key),
    CONSTRAINT effect_is_open_or_done CHECK (answer IS NULL OR attempt_until IS NULL)
) WITH (fillfactor = 80); -- A claim is inserted, then answered in place: room for both on one page.
COMMENT ON TABLE palisade.effect IS
    'One row for each idempotency key: what was asked, and the answer once there is one.';
-- Neither index has a column, or a condition, that answering a claim changes: it stays one update in place.
CREATE INDEX effect_keep_until ON palisade.effect (keep_until);
CREATE INDEX effect_unfinished ON palisade.effect (resource, first_seen) WHERE attempt_until IS NOT NULL;

-- A claim without an answer never commits: whoever forgets to finish an effect loses it, instead of
-- leaving a key that nobody can ever claim again. Nor does an attempt that was opened to be finished: what was
-- written for it would be written a second time by whoever takes it over.
CREATE FUNCTION palisade.keep_effect() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM palisade.effect AS e
        WHERE e.tenant = NEW.tenant AND e.operation = NEW.operation AND e.key = NEW.key
            AND e.answer IS NULL AND e.attempt_until IS NULL) THEN
        RAISE EXCEPTION 'effect % % % was begun in this transaction and not finished',
            NEW.tenant, NEW.operation, NEW.key
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Call palisade.once_finish, or palisade.once_cancel and undo what was written.';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER keep_effect AFTER INSERT OR UPDATE ON palisade.effect DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.answer IS NULL AND NEW.attempt_until IS NULL)
    EXECUTE FUNCTION palisade.keep_effect();
ALTER TABLE palisade.effect ENABLE ALWAYS TRIGGER keep_effect;

-- The good entry of this transaction for a resource, word by word, as palisade.entry; raises if there is none.
CREATE FUNCTION palisade.admitted(resource text) RETURNS text[]
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entry text[] := palisade.entry(resource);
BEGIN
    IF entry IS NULL THEN
        PERFORM palisade.refuse('unguarded', resource, NULL, NULL, 'effect', NULL);
    ELSIF entry[3] <> 'ok' THEN
        PERFORM palisade.refuse(entry[3], resource, entry[4]::bigint,
            CASE WHEN entry[6] <> '-' THEN entry[6]::bigint END, NULL, NULL);
    END IF;
    RETURN entry;
END $$;
COMMENT ON FUNCTION palisade.admitted(text) IS
    'Raises unless this transaction has entered the resource and was admitted.';

-- When a key was made that is a UUID of version 7; else NULL.
CREATE FUNCTION palisade.key_made_at(key text) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN key COLLATE "C"
        ~ '^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-7[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$'
    THEN to_timestamp(('x' || substr(key, 1, 8) || substr(key, 10, 4))::bit(48)::bigint / 1000.0) END
$$;

-- From when on the lifetime of an answer counts that is given now: if the key is from later, from then; but
-- what claims to be from a far future is purged as any other.
CREATE FUNCTION palisade.keep_from(made timestamptz) RETURNS timestamptz
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT least(greatest(clock_timestamp(), made), clock_timestamp() + interval '1 day')
$$;

-- Claims a key for an effect of this transaction (attempt_lifetime NULL), or for an attempt that is finished
-- in a later one. outcome: claimed, taken_over, replayed, in_progress, mismatch, expired.
CREATE FUNCTION palisade.claim(
    resource text, tenant text, operation text, key text, fingerprint bytea,
    attempt_lifetime interval, answer_lifetime interval,
    OUT outcome text, OUT answer text, OUT first_seen timestamptz, OUT attempt integer,
    OUT retry_after interval, OUT owner text[]
) RETURNS record LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    entry text[] := palisade.admitted(claim.resource);
    made timestamptz := CASE WHEN octet_length(claim.key) = 36 THEN palisade.key_made_at(claim.key) END;
    known palisade.effect;
BEGIN
    claim.outcome := 'in_progress';
    claim.retry_after := interval '0.1 s';
    -- Advisory locks of keys: (1262836051, hash), where 1262836051 is "KEYS". Tried, never waited for: a
    -- second request is told at once that the first is under way, and no connections pile up behind a slow
    -- one. When two keys have one hash by chance, a try is wasted.
    IF NOT pg_try_advisory_xact_lock(1262836051, hashtext(
        (claim.tenant || ' ' || claim.operation || ' ' || claim.key) COLLATE "C")) THEN
        RETURN;
    END IF;
    -- Twice, because a purge may take the row away between the two statements.
    FOR round IN 1..2 LOOP
        INSERT INTO palisade.effect AS e (tenant, operation, key, fingerprint, keep_until,
                resource, token, holder, attempt, attempt_until)
            VALUES (claim.tenant, claim.operation, claim.key, claim.fingerprint,
                CASE WHEN claim.attempt_lifetime IS NULL
                    THEN palisade.keep_from(made) + claim.answer_lifetime ELSE 'infinity' END,
                claim.resource, entry[4]::bigint, entry[5],
                CASE WHEN claim.attempt_lifetime IS NULL THEN 0 ELSE 1 END,
                clock_timestamp() + claim.attempt_lifetime)
            ON CONFLICT DO NOTHING RETURNING e.first_seen, e.attempt
            INTO claim.first_seen, claim.attempt;
        IF claim.first_seen IS NOT NULL THEN
            -- After the insert: a row that was purged before it had been kept until made + lifetime at least
            -- (one from a far future: for the lifetime at least, like a key that tells no time).
            IF made + claim.answer_lifetime <= clock_timestamp() THEN
                DELETE FROM palisade.effect AS e WHERE e.tenant = claim.tenant
                    AND e.operation = claim.operation AND e.key = claim.key;
                claim.outcome := 'expired';
            ELSE
                claim.outcome := 'claimed';
            END IF;
            RETURN;
        END IF;
        SELECT * INTO known FROM palisade.effect AS e WHERE e.tenant = claim.tenant
            AND e.operation = claim.operation AND e.key = claim.key;
        IF known.attempt_until IS NOT NULL AND claim.attempt_lifetime IS NOT NULL THEN
            -- To take it over. If another has locked it, it is being finished.
            SELECT * INTO known FROM palisade.effect AS e WHERE e.tenant = claim.tenant
                AND e.operation = claim.operation AND e.key = claim.key FOR UPDATE SKIP LOCKED;
            IF known.key IS NULL THEN
                RETURN;
            END IF;
        END IF;
        EXIT WHEN known.key IS NOT NULL;
    END LOOP;
    IF known.key IS NULL THEN
        RETURN;
    END IF;
    claim.first_seen := known.first_seen;
    IF known.fingerprint <> claim.fingerprint THEN
        claim.outcome := 'mismatch';
    ELSIF known.answer IS NOT NULL THEN
        claim.outcome := 'replayed';
        claim.answer := known.answer;
    ELSIF claim.attempt_lifetime IS NOT NULL AND known.attempt_until IS NOT NULL
        -- The fence that counts is that of the attempt's own resource. This transaction was admitted for its
        -- resource, so that is where the fence is: at its token.
        AND known.resource = claim.resource
        AND (known.token < entry[4]::bigint
            OR (known.token = entry[4]::bigint AND known.holder = entry[5]
                AND known.attempt_until <= clock_timestamp()))
    THEN
        UPDATE palisade.effect AS e SET token = entry[4]::bigint, holder = entry[5],
                attempt = e.attempt + 1, attempt_until = clock_timestamp() + claim.attempt_lifetime
            WHERE e.tenant = claim.tenant AND e.operation = claim.operation AND e.key = claim.key
            RETURNING e.attempt INTO claim.attempt;
        claim.outcome := 'taken_over';
    ELSIF known.attempt_until IS NOT NULL THEN
        claim.owner := ARRAY[known.resource, known.token::text, known.holder];
        claim.retry_after := CASE
            WHEN known.token = entry[4]::bigint AND known.resource = claim.resource
            THEN greatest(known.attempt_until - clock_timestamp(), interval '0.1 s')
            ELSE interval '1 s' END;
    END IF;
END $$;

CREATE FUNCTION palisade.once_begin(
    resource text, tenant text, operation text, key text, fingerprint bytea,
    answer_lifetime interval DEFAULT '7 days',
    OUT outcome text, OUT answer text, OUT first_seen timestamptz, OUT retry_after interval, OUT owner text[]
) RETURNS record LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.outcome, c.answer, c.first_seen, c.retry_after, c.owner
        FROM palisade.claim(resource, tenant, operation, key, fingerprint, NULL, answer_lifetime) AS c
$$;
COMMENT ON FUNCTION palisade.once_begin(text, text, text, text, bytea, interval) IS
    'Claims a key in this guarded transaction: claimed, replayed, in_progress, mismatch or expired.';

CREATE FUNCTION palisade.once_finish(tenant text, operation text, key text, answer text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    -- A claim is seen by its own transaction only.
    UPDATE palisade.effect AS e SET answer = once_finish.answer
        WHERE e.tenant = once_finish.tenant AND e.operation = once_finish.operation
            AND e.key = once_finish.key AND e.answer IS NULL AND e.attempt_until IS NULL AND e.attempt = 0;
    IF once_finish.answer IS NULL OR NOT FOUND THEN
        RAISE EXCEPTION 'no effect to finish, or no answer: % % %',
            once_finish.tenant, once_finish.operation, once_finish.key
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Call palisade.once_begin before, in the same transaction.';
    END IF;
END $$;
COMMENT ON FUNCTION palisade.once_finish(text, text, text, text) IS
    'Stores the answer (JSON) of a key that this transaction has claimed.';

CREATE FUNCTION palisade.once_cancel(tenant text, operation text, key text) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM palisade.effect AS e
        WHERE e.tenant = once_cancel.tenant AND e.operation = once_cancel.operation
            AND e.key = once_cancel.key AND e.answer IS NULL AND e.attempt_until IS NULL AND e.attempt = 0
$$;
COMMENT ON FUNCTION palisade.once_cancel(text, text, text) IS
    'Gives back a key that this transaction has claimed and not finished. Undo what was written, too.';

CREATE FUNCTION palisade.attempt_begin(
    resource text, tenant text, operation text, key text, fingerprint bytea,
    attempt_lifetime interval DEFAULT '1 minute', answer_lifetime interval DEFAULT '7 days',
    OUT outcome text, OUT answer text, OUT first_seen timestamptz, OUT attempt integer,
    OUT retry_after interval, OUT owner text[]
) RETURNS record LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM palisade.claim(resource, tenant, operation, key, fingerprint,
        COALESCE(attempt_lifetime, '1 minute'), answer_lifetime)
$$;
COMMENT ON FUNCTION palisade.attempt_begin(text, text, text, text, bytea, interval, interval) IS
    'Records that an external call is about to be made. Commit it before the call.';

-- Opens an attempt that this transaction is to finish: open, replayed (it was finished before) or superseded
-- (also when this transaction has opened it before, and not finished).
CREATE FUNCTION palisade.attempt_open(
    resource text, tenant text, operation text, key text, attempt integer,
    OUT outcome text, OUT answer text, OUT first_seen timestamptz
) RETURNS record LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    entry text[] := palisade.admitted(attempt_open.resource);
    known palisade.effect;
BEGIN
    -- So that claims are told at once, instead of waiting behind this transaction's update. Without the lock
    -- (somebody asks for the key just now) the row's decides all the same, and a claim may wait.
    PERFORM pg_try_advisory_xact_lock(1262836051, hashtext((attempt_open.tenant || ' '
        || attempt_open.operation || ' ' || attempt_open.key) COLLATE "C"));
    SELECT * INTO known FROM palisade.effect AS e WHERE e.tenant = attempt_open.tenant
        AND e.operation = attempt_open.operation AND e.key = attempt_open.key FOR UPDATE;
    attempt_open.answer := known.answer;
    attempt_open.first_seen := known.first_seen;
    attempt_open.outcome := CASE WHEN known.answer IS NOT NULL THEN 'replayed'
        WHEN known.attempt_until IS NOT NULL AND known.attempt = attempt_open.attempt
            AND known.resource = attempt_open.resource
            AND known.token = entry[4]::bigint AND known.holder = entry[5] THEN 'open'
        ELSE 'superseded' END;
    IF attempt_open.outcome = 'open' THEN
        UPDATE palisade.effect AS e SET attempt_until = NULL WHERE e.tenant = attempt_open.tenant
            AND e.operation = attempt_open.operation AND e.key = attempt_open.key;
    END IF;
END $$;
COMMENT ON FUNCTION palisade.attempt_open(text, text, text, text, integer) IS
    'Opens an attempt, which this guarded transaction then has to finish: open, replayed or superseded.';

-- Finishes an attempt of this transaction's grant; without an answer its holder may begin it again at once.
CREATE FUNCTION palisade.attempt_finish(
    resource text, tenant text, operation text, key text, attempt integer, answer text,
    answer_lifetime interval DEFAULT '7 days'
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    entry text[] := palisade.admitted(attempt_finish.resource);
BEGIN
    UPDATE palisade.effect AS e SET
            answer = attempt_finish.answer,
            keep_until = CASE WHEN attempt_finish.answer IS NULL THEN e.keep_until ELSE
                palisade.keep_from(palisade.key_made_at(e.key)) + attempt_finish.answer_lifetime END,
            attempt_until = CASE WHEN attempt_finish.answer IS NULL THEN clock_timestamp() END
        WHERE e.tenant = attempt_finish.tenant AND e.operation = attempt_finish.operation
            AND e.key = attempt_finish.key AND e.answer IS NULL AND e.attempt > 0
            AND e.attempt = attempt_finish.attempt AND e.resource = attempt_finish.resource
            AND e.token = entry[4]::bigint AND e.holder = entry[5];
    IF NOT FOUND AND attempt_finish.answer IS NOT NULL THEN
        RAISE EXCEPTION 'attempt % of % % % is not this grant''s to finish', attempt_finish.attempt,
            attempt_finish.tenant, attempt_finish.operation, attempt_finish.key
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Call palisade.attempt_open before, in the same transaction.';
    END IF;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION palisade.attempt_finish(text, text, text, text, integer, text, interval) IS
    'Stores the answer of an attempt; or, given none, ends it: false if it is not this grant''s any more.';

CREATE FUNCTION palisade.unfinished(resource text, most integer DEFAULT 100)
    RETURNS TABLE (tenant text, operation text, key text, token bigint, holder text,
        attempt integer, attempt_until timestamptz, first_seen timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT e.tenant, e.operation, e.key, e.token, e.holder, e.attempt, e.attempt_until, e.first_seen
        FROM palisade.effect AS e
        WHERE e.resource = unfinished.resource COLLATE "C" AND e.attempt_until IS NOT NULL
        ORDER BY e.first_seen LIMIT most
$$;
COMMENT ON FUNCTION palisade.unfinished(text, integer) IS
    'The attempts of a resource that were begun and not finished, oldest first.';

-- Skips what is locked: another purge is at it.
CREATE FUNCTION palisade.purge_effects(most integer DEFAULT 1000) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    now timestamptz := clock_timestamp(); -- A constant, so that the index is used.
    purged bigint;
BEGIN
    DELETE FROM palisade.effect WHERE ctid = ANY (ARRAY(
        SELECT e.ctid FROM palisade.effect AS e
            WHERE e.keep_until < now AND e.answer IS NOT NULL
            ORDER BY e.keep_until LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END $$;
COMMENT ON FUNCTION palisade.purge_effects(integer) IS
    'Deletes the longest expired answers, at most so many; never an attempt that is not finished.';

-- For gauges: as many rows as the planner knows of, and the age of the oldest attempt that is not finished.
CREATE FUNCTION palisade.effects_backlog(OUT rows bigint, OUT oldest_unfinished interval)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT (SELECT greatest(c.reltuples, 0)::bigint FROM pg_class AS c
            WHERE c.oid = 'palisade.effect'::regclass),
        (SELECT clock_timestamp() - min(e.first_seen) FROM palisade.effect AS e
            WHERE e.attempt_until IS NOT NULL)
$$;

-- What grant_writer gave before, and what effects need.
ALTER FUNCTION palisade.grant_writer(regrole) RENAME TO grant_writer_2;
CREATE FUNCTION palisade.grant_writer(role regrole) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM palisade.grant_writer_2(role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION palisade.admitted(text), '
        'palisade.claim(text, text, text, text, bytea, interval, interval), '
        'palisade.once_begin(text, text, text, text, bytea, interval), '
        'palisade.once_finish(text, text, text, text), palisade.once_cancel(text, text, text), '
        'palisade.attempt_begin(text, text, text, text, bytea, interval, interval), '
        'palisade.attempt_open(text, text, text, text, integer), '
        'palisade.attempt_finish(text, text, text, text, integer, text, interval), '
        'palisade.unfinished(text, integer), palisade.purge_effects(integer), '
        'palisade.effects_backlog() TO %s', role);
END $$;
COMMENT ON FUNCTION palisade.grant_writer(regrole) IS
    'Lets a role seal, enter and check, and apply effects: no right on a table of this schema.';
REVOKE ALL ON FUNCTION palisade.grant_writer(regrole), palisade.admitted(text), palisade.keep_effect(),
    palisade.key_made_at(text), palisade.keep_from(timestamptz),
    palisade.claim(text, text, text, text, bytea, interval, interval),
    palisade.once_begin(text, text, text, text, bytea, interval),
    palisade.once_finish(text, text, text, text), palisade.once_cancel(text, text, text),
    palisade.attempt_begin(text, text, text, text, bytea, interval, interval),
    palisade.attempt_open(text, text, text, text, integer),
    palisade.attempt_finish(text, text, text, text, integer, text, interval),
    palisade.unfinished(text, integer), palisade.purge_effects(integer),
    palisade.effects_backlog() FROM PUBLIC;
