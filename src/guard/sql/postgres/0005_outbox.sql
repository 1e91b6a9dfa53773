-- Version 5 of the schema `palisade`: the outbox, its relay, and dead letters.
--
-- Traps that shape it:
-- * A transaction that staged first may commit last: a relay that remembers the greatest id it has seen skips
--   the other's rows. This one remembers nothing: what is published is deleted, what is there is pending.
-- * A guarded transaction gets its id at BEGIN, so ids of transactions do not order the messages of an
--   aggregate; staging takes a lock of the aggregate instead, and the ids of rows then do.
-- * A message waits until every transaction that began before its own has ended (the horizon), so that what is
--   published is never changed by something older; and all later ones of its aggregate wait with it.

-- What every relay can read: one message that it cannot would stop its whole outbox.
CREATE DOMAIN palisade.headers AS jsonb CHECK (jsonb_typeof(VALUE) = 'object' AND octet_length(VALUE::text) <= 16384
    AND NOT jsonb_path_exists(VALUE, 'strict $.* ? (@.type() <> "string")'));
-- An idempotency key of the library: tenant, operation and key.
CREATE DOMAIN palisade.key AS text COLLATE "C" CHECK (VALUE ~ '^[!-~]{1,128} [!-~]{1,64} [!-~]{1,255}$');

CREATE TABLE palisade.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    outbox palisade.name NOT NULL,
    message palisade.name NOT NULL,
    topic palisade.name NOT NULL,
    aggregate palisade.name,
    key palisade.key,
    resource text COLLATE "C" NOT NULL,
    token bigint NOT NULL,
    -- Whose message it is says the relay, and no stager.
    headers palisade.headers NOT NULL CHECK (NOT headers
        ?| '{msg-id, fence-token, fence-resource, idempotency-key, aggregate}'),
    payload bytea NOT NULL CHECK (octet_length(payload) <= 1048576),
    staged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at timestamptz NOT NULL DEFAULT '-infinity',
    attempts integer NOT NULL DEFAULT 0,
    errors text[] NOT NULL DEFAULT '{}',
    first_attempt_at timestamptz,
    last_attempt_at timestamptz
);
CREATE INDEX outbox_in_order ON palisade.outbox (outbox, id);
CREATE INDEX outbox_by_aggregate ON palisade.outbox (outbox, aggregate, id) WHERE aggregate IS NOT NULL;
COMMENT ON TABLE palisade.outbox IS 'Messages to publish. A row is here until it is published or buried.';

CREATE TABLE palisade.relay (
    outbox palisade.name PRIMARY KEY,
    resource text COLLATE "C" NOT NULL
);
COMMENT ON TABLE palisade.relay IS
    'Whose holder publishes an outbox: the first that did. Two relays of different resources would not exclude '
    'each other; to change it, the owner deletes the row while no relay runs.';

CREATE TABLE palisade.dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    outbox palisade.name,
    consumer palisade.name,
    message palisade.name NOT NULL,
    topic palisade.name NOT NULL,
    aggregate palisade.name,
    key palisade.key,
    resource text COLLATE "C" NOT NULL,
    token bigint NOT NULL,
    headers palisade.headers NOT NULL,
    payload bytea NOT NULL CHECK (octet_length(payload) <= 1048576),
    attempts integer NOT NULL,
    errors text[] NOT NULL,
    first_attempt_at timestamptz NOT NULL,
    last_attempt_at timestamptz NOT NULL,
    buried_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (num_nonnulls(outbox, consumer) = 1)
);
CREATE INDEX dead_letter_by_age ON palisade.dead_letter (buried_at);
COMMENT ON TABLE palisade.dead_letter IS 'Messages given up after their last attempt, with their own key.';

CREATE FUNCTION palisade.stage(
    resource text, outbox text, topic text, payload bytea, aggregate text DEFAULT NULL,
    key text DEFAULT NULL, headers jsonb DEFAULT '{}', message text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mine bigint := palisade.acting(resource);
    -- Not the row's number: after a restore numbers come again, and consumers would take new for seen.
    name text := coalesce(message, gen_random_uuid()::text);
BEGIN
    IF aggregate IS NOT NULL THEN
        -- Until the end of the transaction: rows of one aggregate are numbered in the order of their commits.
        PERFORM pg_advisory_xact_lock(1346456650, hashtext((outbox || E'\n' || aggregate) COLLATE "C") & 1023);
    END IF;
    INSERT INTO palisade.outbox (outbox, message, topic, aggregate, key, resource, token, headers, payload)
        VALUES (stage.outbox, name, stage.topic, stage.aggregate, stage.key, stage.resource, mine,
            coalesce(stage.headers, '{}'), stage.payload);
    RETURN name;
END $$;
COMMENT ON FUNCTION palisade.stage(text, text, text, bytea, text, text, jsonb, text) IS
    'Stages a message in the transaction of its effect; returns its id. Ordered within its aggregate.';

-- Says that the caller is the relay of the outbox, for this transaction.
CREATE FUNCTION palisade.relaying(resource text, outbox text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner text;
BEGIN
    PERFORM palisade.acting(resource);
    FOR attempt IN 1..2 LOOP
        SELECT r.resource INTO owner FROM palisade.relay AS r WHERE r.outbox = relaying.outbox COLLATE "C";
        EXIT WHEN FOUND;
        INSERT INTO palisade.relay (outbox, resource) VALUES (relaying.outbox, relaying.resource)
            ON CONFLICT DO NOTHING;
    END LOOP;
    IF owner <> resource COLLATE "C" THEN
        RAISE EXCEPTION 'the outbox % is published under %, not under %', outbox, owner, resource
            USING ERRCODE = 'object_in_use';
    END IF;
END $$;

CREATE FUNCTION palisade.outbox_batch(resource text, outbox text, most integer, most_bytes bigint)
    RETURNS TABLE (id bigint, message text, topic text, aggregate text, key text, resource_name text,
        token bigint, headers text, payload bytea, attempts integer)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    now timestamptz := clock_timestamp();
BEGIN
    PERFORM palisade.relaying(resource, outbox);
    RETURN QUERY
    WITH horizon AS MATERIALIZED (
        SELECT pg_snapshot_xmin(s) AS oldest, pg_snapshot_xmax(s) AS next FROM pg_current_snapshot() AS s
    ), ready AS (
        SELECT o.* FROM palisade.outbox AS o, horizon AS h
        WHERE o.outbox = outbox_batch.outbox COLLATE "C"
            -- What is visible and yet not begun comes from another server, with a dump: it is settled.
            AND (o.xid < h.oldest OR o.xid >= h.next) AND o.due_at <= now
            AND (o.aggregate IS NULL OR NOT EXISTS (
                SELECT FROM palisade.outbox AS e
                WHERE e.outbox = o.outbox AND e.aggregate = o.aggregate AND e.id < o.id
                    AND NOT ((e.xid < h.oldest OR e.xid >= h.next) AND e.due_at <= now)))
        ORDER BY o.id LIMIT most
    ), sized AS (
        SELECT r.*, sum(octet_length(r.payload)) OVER (ORDER BY r.id) - octet_length(r.payload) AS before
        FROM ready AS r
    )
    SELECT s.id, s.message::text, s.topic::text, s.aggregate::text, s.key::text, s.resource, s.token,
        s.headers::text, s.payload, s.attempts
    FROM sized AS s WHERE s.before < most_bytes ORDER BY s.id;
END $$;
COMMENT ON FUNCTION palisade.outbox_batch(text, text, integer, bigint) IS
    'The next messages to publish, in order. For the relay: a stale one gets none.';

CREATE FUNCTION palisade.outbox_published(resource text, outbox text, ids bigint[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    PERFORM palisade.relaying(resource, outbox);
    DELETE FROM palisade.outbox AS o
        WHERE o.outbox = outbox_published.outbox COLLATE "C" AND o.id = ANY (ids);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

-- The first errors say how it began, the last ones how it ended: 16 of at most 2,000 characters.
CREATE FUNCTION palisade.chain(errors text[], error text) RETURNS text[]
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN cardinality(errors) < 16 THEN errors
        ELSE errors[:8] || errors[10:] END || left(error, 2000)
$$;

CREATE FUNCTION palisade.outbox_failed(
    resource text, outbox text, id bigint, error text, wait interval, final boolean, most integer
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    failed palisade.outbox;
BEGIN
    PERFORM palisade.relaying(resource, outbox);
    UPDATE palisade.outbox AS o SET attempts = o.attempts + 1, errors = palisade.chain(o.errors, error),
            due_at = clock_timestamp() + wait, last_attempt_at = clock_timestamp(),
            first_attempt_at = coalesce(o.first_attempt_at, clock_timestamp())
        WHERE o.outbox = outbox_failed.outbox COLLATE "C" AND o.id = outbox_failed.id
        RETURNING o.* INTO failed;
    IF NOT FOUND THEN
        RETURN 'gone';
    ELSIF NOT (final OR failed.attempts >= most) THEN
        RETURN 'again';
    END IF;
    DELETE FROM palisade.outbox AS o WHERE o.id = failed.id;
    INSERT INTO palisade.dead_letter (outbox, message, topic, aggregate, key, resource, token, headers,
            payload, attempts, errors, first_attempt_at, last_attempt_at)
        VALUES (failed.outbox, failed.message, failed.topic, failed.aggregate, failed.key, failed.resource,
            failed.token, failed.headers, failed.payload, failed.attempts, failed.errors,
            failed.first_attempt_at, failed.last_attempt_at);
    RETURN 'dead';
END $$;
COMMENT ON FUNCTION palisade.outbox_failed(text, text, bigint, text, interval, boolean, integer) IS
    'Records a failed attempt to publish: again, or dead (final, or the last of the attempts).';

CREATE FUNCTION palisade.consumer_failed(
    resource text, consumer text, message text, error text, final boolean, most integer, topic text,
    payload bytea, aggregate text DEFAULT NULL, key text DEFAULT NULL, headers jsonb DEFAULT '{}'
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mine bigint := palisade.acting(resource);
    failed palisade.failure;
BEGIN
    -- It was handled after all: the answer to that commit was lost, or another delivery went through.
    IF EXISTS (SELECT FROM palisade.inbox AS i WHERE i.consumer = consumer_failed.consumer COLLATE "C"
            AND i.message = consumer_failed.message COLLATE "C") THEN
        RETURN 'again';
    END IF;
    INSERT INTO palisade.failure AS f (consumer, message, attempts, errors, first_attempt_at, last_attempt_at)
        VALUES (consumer_failed.consumer, consumer_failed.message, 1, palisade.chain('{}', error),
            clock_timestamp(), clock_timestamp())
        ON CONFLICT ON CONSTRAINT failure_pkey DO UPDATE SET attempts = f.attempts + 1,
            errors = palisade.chain(f.errors, error), last_attempt_at = clock_timestamp()
        RETURNING f.* INTO failed;
    IF NOT (final OR failed.attempts >= most) THEN
        RETURN 'again';
    END IF;
    DELETE FROM palisade.failure AS f WHERE f.consumer = failed.consumer AND f.message = failed.message;
    INSERT INTO palisade.dead_letter (consumer, message, topic, aggregate, key, resource, token, headers,
            payload, attempts, errors, first_attempt_at, last_attempt_at)
        VALUES (failed.consumer, failed.message, consumer_failed.topic, consumer_failed.aggregate,
            consumer_failed.key, consumer_failed.resource, mine, coalesce(consumer_failed.headers, '{}'),
            consumer_failed.payload, failed.attempts, failed.errors, failed.first_attempt_at,
            failed.last_attempt_at);
    RETURN 'dead';
END $$;
COMMENT ON FUNCTION palisade.consumer_failed(
    text, text, text, text, boolean, integer, text, bytea, text, text, jsonb) IS
    'Records a failed attempt to handle a message: again, or dead. In a transaction of its own, after a rollback.';

-- A dead letter as clients of any language read it.
CREATE VIEW palisade.letter AS
    SELECT d.id, d.outbox::text, d.consumer::text, d.message::text, d.topic::text, d.aggregate::text, d.key::text,
        d.resource::text AS resource_name, d.token, d.headers::text, d.payload, d.attempts,
        to_json(d.errors)::text AS errors,
        (extract(epoch FROM d.first_attempt_at) * 1000000)::bigint AS first_attempt_micros,
        (extract(epoch FROM d.last_attempt_at) * 1000000)::bigint AS last_attempt_micros
    FROM palisade.dead_letter AS d;

CREATE FUNCTION palisade.take_dead_letter(resource text, id bigint) RETURNS SETOF palisade.letter
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM palisade.acting(resource);
    -- Locked first: of two that take it, one waits, and finds it gone or there.
    PERFORM FROM palisade.dead_letter AS d WHERE d.id = take_dead_letter.id FOR UPDATE;
    RETURN QUERY SELECT l.* FROM palisade.letter AS l WHERE l.id = take_dead_letter.id;
    DELETE FROM palisade.dead_letter AS d WHERE d.id = take_dead_letter.id;
END $$;
COMMENT ON FUNCTION palisade.take_dead_letter(text, bigint) IS
    'Takes a dead letter to handle it, with its own key, in this transaction. If that rolls back, it is there still.';

CREATE FUNCTION palisade.replay_dead_letter(resource text, id bigint) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    letter palisade.dead_letter;
BEGIN
    PERFORM palisade.acting(resource);
    DELETE FROM palisade.dead_letter AS d WHERE d.id = replay_dead_letter.id AND d.outbox IS NOT NULL
        RETURNING d.* INTO letter;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN palisade.stage(resource, letter.outbox, letter.topic, letter.payload, letter.aggregate, letter.key,
        letter.headers, letter.message);
END $$;
COMMENT ON FUNCTION palisade.replay_dead_letter(text, bigint) IS
    'Stages a dead letter of an outbox again, under its own id and key, which it returns; NULL if there is none.';

CREATE FUNCTION palisade.dead_letters(after bigint, most integer) RETURNS SETOF palisade.letter
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT l.* FROM palisade.letter AS l WHERE l.id > after ORDER BY l.id LIMIT most
$$;

CREATE FUNCTION palisade.backlog(
    outbox text, OUT pending bigint, OUT held bigint, OUT oldest_micros bigint, OUT horizon_lag_micros bigint,
    OUT holder_pid integer, OUT holder_gid text, OUT dead_letters bigint
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    now timestamptz := clock_timestamp();
    oldest xid8;
    oldest_at timestamptz;
    held_at timestamptz;
BEGIN
    WITH horizon AS MATERIALIZED (
        SELECT pg_snapshot_xmin(s) AS oldest, pg_snapshot_xmax(s) AS next FROM pg_current_snapshot() AS s
    ), waiting AS (
        SELECT o.staged_at, o.xid >= h.oldest AND o.xid < h.next AS is_held
        FROM palisade.outbox AS o, horizon AS h WHERE o.outbox = backlog.outbox COLLATE "C"
    )
    SELECT (SELECT h.oldest FROM horizon AS h), count(*), count(*) FILTER (WHERE w.is_held),
            min(w.staged_at), min(w.staged_at) FILTER (WHERE w.is_held)
        INTO oldest, pending, held, oldest_at, held_at FROM waiting AS w;
    oldest_micros := coalesce(greatest(extract(epoch FROM now - oldest_at), 0) * 1000000, 0);
    horizon_lag_micros := coalesce(greatest(extract(epoch FROM now - held_at), 0) * 1000000, 0);
    IF held > 0 THEN
        SELECT a.pid INTO holder_pid FROM pg_stat_activity AS a WHERE a.backend_xid = oldest::xid LIMIT 1;
        SELECT p.gid INTO holder_gid FROM pg_prepared_xacts AS p WHERE p.transaction = oldest::xid LIMIT 1;
    END IF;
    SELECT count(*) INTO dead_letters FROM palisade.dead_letter AS d WHERE d.outbox = backlog.outbox COLLATE "C";
END $$;
COMMENT ON FUNCTION palisade.backlog(text) IS
    'What waits in an outbox; how much of it, and since when, for a transaction that still runs, and for which.';

CREATE FUNCTION palisade.purge_flow(what text, older interval, most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    IF older IS NULL OR older < interval '0' OR most IS NULL OR most NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'an age, and 1 to 10000 rows at once, not % and %', older, most
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    CASE what
    WHEN 'inbox' THEN
        DELETE FROM palisade.inbox AS t WHERE t.ctid = ANY (ARRAY(SELECT r.ctid FROM palisade.inbox AS r
            WHERE r.received_at < clock_timestamp() - older
            ORDER BY r.received_at LIMIT most FOR UPDATE SKIP LOCKED));
    WHEN 'failure' THEN
        DELETE FROM palisade.failure AS t WHERE t.ctid = ANY (ARRAY(SELECT r.ctid FROM palisade.failure AS r
            WHERE r.last_attempt_at < clock_timestamp() - older
            ORDER BY r.last_attempt_at LIMIT most FOR UPDATE SKIP LOCKED));
    WHEN 'dead_letter' THEN
        DELETE FROM palisade.dead_letter AS t WHERE t.ctid = ANY (ARRAY(
            SELECT r.ctid FROM palisade.dead_letter AS r WHERE r.buried_at < clock_timestamp() - older
            ORDER BY r.buried_at LIMIT most FOR UPDATE SKIP LOCKED));
    ELSE
        RAISE EXCEPTION 'inbox, failure or dead_letter, not %', what USING ERRCODE = 'invalid_parameter_value';
    END CASE;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
COMMENT ON FUNCTION palisade.purge_flow(text, interval, integer) IS
    'Forgets one batch of inbox, failure or dead_letter rows of this age; returns how many.';

-- What grant_writer gave before, and what streams of effects need.
ALTER FUNCTION palisade.grant_writer(regrole) RENAME TO grant_writer_4;
CREATE FUNCTION palisade.grant_writer(role regrole) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one text;
BEGIN
    PERFORM palisade.grant_writer_4(role);
    FOREACH one IN ARRAY ARRAY['accept', 'restart_sequence', 'last_sequence', 'advance_offset', 'expect_version',
        'position_of', 'inbox', 'stage', 'outbox_batch', 'outbox_published', 'outbox_failed', 'consumer_failed',
        'take_dead_letter', 'replay_dead_letter', 'dead_letters', 'backlog', 'purge_flow'] LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION palisade.%I TO %s', one, role);
    END LOOP;
END $$;
COMMENT ON FUNCTION palisade.grant_writer(regrole) IS
    'Lets a role seal, enter and check, and apply effects: no right on a table of this schema.';
REVOKE ALL ON FUNCTION palisade.stage, palisade.relaying, palisade.outbox_batch, palisade.outbox_published,
    palisade.chain, palisade.outbox_failed, palisade.consumer_failed, palisade.take_dead_letter,
    palisade.replay_dead_letter, palisade.dead_letters, palisade.backlog, palisade.purge_flow, palisade.grant_writer
    FROM PUBLIC;
