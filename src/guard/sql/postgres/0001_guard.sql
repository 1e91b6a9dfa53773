-- Version 1 of the schema `palisade`: the fence, the seal and the check.
--
-- stripe, enter, open, check and the triggers' functions run in every guarded transaction. A SET clause would
-- cost each call about 5 us, so they have none: instead every name in them is qualified, of types (which pg_temp would
-- come first for, whatever the search_path), functions, operators and collations alike, so that nothing of
-- the caller's can stand in its place and run with the owner's rights. The rest runs seldom and pins
-- search_path, pg_temp last.
--
-- A resource may come from a column of any collation: names are compared and hashed as "C" says, byte by
-- byte. A nondeterministic collation would lead to the lock of another stripe.

CREATE TABLE palisade.fence (
    resource text COLLATE "C" PRIMARY KEY
        CONSTRAINT fence_resource_is_a_name CHECK (
            octet_length(resource) <= 256
            AND resource ~ '^[A-Za-z0-9._:-]+(/[A-Za-z0-9._:-]+)*$'
            AND resource !~ '(^|/)\.\.?(/|$)'),
    token bigint NOT NULL
        CONSTRAINT fence_token_is_a_token CHECK (token BETWEEN 1 AND 9007199254740991),
    holder text COLLATE "C" NOT NULL
        CONSTRAINT fence_holder_is_an_id CHECK (holder ~ '^[0-9a-f]{32}$'),
    sealed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE palisade.fence IS
    'The token last sealed for each resource. Never lowered, never deleted: a write below it is refused.';

-- Which history of which database this is: server, timeline (a failover and a point-in-time recovery begin
-- another), database (so does a restored dump). A seal that was made in another may have been lost from
-- this one; palisade.audit says so. It decides nothing.
CREATE FUNCTION palisade.history() RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    server text := '-';
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN NULL;
    END IF;
    -- Some hosts keep it to themselves; a seal does not depend on it.
    IF has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') THEN
        SELECT s.system_identifier INTO server FROM pg_control_system() AS s;
    END IF;
    RETURN concat_ws('/', server, substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8),
        (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()));
END $$;
ALTER TABLE palisade.fence ADD COLUMN history text COLLATE "C" DEFAULT palisade.history();

-- Advisory locks of this schema: (1346456649, stripe), where 1346456649 is "PALI". Stripes bound the
-- locks of one transaction to 1,024, however many resources it enters; a seal may wait for a neighbour.
CREATE FUNCTION palisade.stripe(resource text) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT pg_catalog.hashtext(resource COLLATE pg_catalog."C") OPERATOR(pg_catalog.&) 1023
$$;
COMMENT ON FUNCTION palisade.stripe(text) IS
    'The advisory lock of a resource is (1346456649, stripe): shared for writers, exclusive for a seal.';

CREATE FUNCTION palisade.refuse(
    outcome text, resource text, presented bigint, fence bigint, act text, "table" text
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    facts text := json_build_object('resource', resource, 'presented', presented, 'fence', fence);
    at text := CASE WHEN fence IS NULL THEN 'it has no fence' ELSE 'the fence is at ' || fence END;
BEGIN
    CASE outcome
    WHEN 'stale' THEN
        RAISE EXCEPTION 'stale token % for %: %', presented, resource, at
            USING ERRCODE = 'ZF001', DETAIL = facts,
            HINT = 'A later holder has sealed this resource. Stop; do not retry.';
    WHEN 'unsealed' THEN
        RAISE EXCEPTION 'unsealed token % for %: %', presented, resource, at
            USING ERRCODE = 'ZF002', DETAIL = facts,
            HINT = 'Call palisade.seal with this token, and read again what you have read before.';
    WHEN 'collision' THEN
        RAISE EXCEPTION 'token % for % was sealed by another holder', presented, resource
            USING ERRCODE = 'ZF004', DETAIL = facts,
            HINT = 'Two holds were given one token. Stop; acquire again to get a greater one.';
    ELSE
        RAISE EXCEPTION 'unguarded: % without an entry for %', act, resource
            USING ERRCODE = 'ZF003', DETAIL = facts, TABLE = COALESCE("table", ''),
            HINT = 'Call palisade.enter with a sealed token first, in the same transaction.';
    END CASE;
END $$;

-- The fence keeps itself: this holds for every writer of the table, its owner and replication included.
CREATE FUNCTION palisade.keep_fence() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP IN ('DELETE', 'TRUNCATE') THEN
        RAISE EXCEPTION 'a fence is never deleted: without it every stale token is a first one'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    -- Without the lock a writer that passed its check under the old token could commit after the raise.
    PERFORM pg_advisory_xact_lock(1346456649, palisade.stripe(NEW.resource));
    IF TG_OP = 'UPDATE' THEN
        IF NEW.resource <> OLD.resource THEN
            RAISE EXCEPTION 'a fence is never renamed: its resource would be left without one'
                USING ERRCODE = 'object_not_in_prerequisite_state';
        ELSIF NEW.token < OLD.token THEN
            PERFORM palisade.refuse('stale', OLD.resource, NEW.token, OLD.token, NULL, NULL);
        ELSIF NEW.token = OLD.token AND NEW.holder <> OLD.holder THEN
            PERFORM palisade.refuse('collision', OLD.resource, NEW.token, OLD.token, NULL, NULL);
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_rows BEFORE INSERT OR UPDATE ON palisade.fence
    FOR EACH ROW EXECUTE FUNCTION palisade.keep_fence();
CREATE TRIGGER keep_all BEFORE DELETE OR TRUNCATE ON palisade.fence
    FOR EACH STATEMENT EXECUTE FUNCTION palisade.keep_fence();
ALTER TABLE palisade.fence ENABLE ALWAYS TRIGGER keep_rows;
ALTER TABLE palisade.fence ENABLE ALWAYS TRIGGER keep_all;

CREATE FUNCTION palisade.seal(resource text, token bigint, holder text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fence palisade.fence;
BEGIN
    IF resource IS NULL OR token IS NULL OR holder IS NULL THEN
        RAISE EXCEPTION 'resource, token and holder are needed' USING ERRCODE = 'null_value_not_allowed';
    ELSIF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a seal needs READ COMMITTED: an older snapshot does not show the present fence'
            USING ERRCODE = 'feature_not_supported';
    ELSIF palisade.entry(resource) IS NOT NULL THEN
        -- The entry would still admit this transaction when the fence is above it.
        RAISE EXCEPTION 'this transaction has entered %: seal it in one of its own', resource
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    -- Exclusive from the start: a shared lock raised to it would deadlock with another such raise.
    PERFORM pg_advisory_xact_lock(1346456649, palisade.stripe(seal.resource));
    SELECT * INTO fence FROM palisade.fence AS f WHERE f.resource = seal.resource COLLATE "C";
    IF seal.token < fence.token THEN
        PERFORM palisade.refuse('stale', seal.resource, seal.token, fence.token, NULL, NULL);
    ELSIF seal.token = fence.token AND seal.holder COLLATE "C" <> fence.holder THEN
        PERFORM palisade.refuse('collision', seal.resource, seal.token, fence.token, NULL, NULL);
    ELSIF fence.resource IS NULL THEN
        INSERT INTO palisade.fence (resource, token, holder)
            VALUES (seal.resource, seal.token, seal.holder);
    ELSIF seal.token > fence.token THEN
        UPDATE palisade.fence AS f
            SET token = seal.token, holder = seal.holder, sealed_at = clock_timestamp(),
                history = palisade.history()
            WHERE f.resource = seal.resource COLLATE "C";
    ELSIF fence.history IS DISTINCT FROM palisade.history() THEN
        UPDATE palisade.fence AS f SET history = palisade.history()
            WHERE f.resource = seal.resource COLLATE "C";
    ELSE
        -- The seal that this one repeats may have committed here without its synchronous standby (its wait
        -- was cancelled). Only a transaction that writes log waits for the standby, and for all before it.
        PERFORM pg_logical_emit_message(true, 'palisade', ''::text);
    END IF;
    RETURN fence.token;
END $$;
COMMENT ON FUNCTION palisade.seal(text, bigint, text) IS
    'Raises the fence; returns the token it was at before. Commit it on its own, before the first read.';

CREATE FUNCTION palisade.status(resource text)
    RETURNS TABLE (token bigint, holder text, sealed_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.token, f.holder, f.sealed_at FROM palisade.fence AS f
        WHERE f.resource = status.resource COLLATE "C"
$$;
COMMENT ON FUNCTION palisade.status(text) IS
    'The fence of a resource, for a person to look at. Comparing with it is no check: use enter or check.';

CREATE FUNCTION palisade.blockers(resource text)
    RETURNS TABLE (pid integer, gid text, application text, state text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT l.pid, p.gid, a.application_name, a.state
    FROM pg_locks AS l
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    -- A prepared transaction has no pid; its own transactionid lock leads from its locks to its gid.
    LEFT JOIN pg_locks AS x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
        AND x.virtualtransaction = l.virtualtransaction AND x.granted
    LEFT JOIN pg_prepared_xacts AS p ON p.transaction = x.transactionid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
        AND l.classid = 1346456649 AND l.objid = palisade.stripe(blockers.resource)::oid
        AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
        AND l.pid IS DISTINCT FROM pg_backend_pid()
    ORDER BY l.pid, p.gid
$$;
COMMENT ON FUNCTION palisade.blockers(text) IS
    'The sessions and prepared transactions that a seal of the resource would wait for.';

CREATE FUNCTION palisade.grant_writer(role regrole) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION palisade.enter(text, bigint, text), '
        'palisade.check(text, bigint, text, boolean), palisade.seal(text, bigint, text), '
        'palisade.stripe(text), palisade.status(text), palisade.blockers(text) TO %s', role);
    EXECUTE format('GRANT EXECUTE ON PROCEDURE palisade.open(text) TO %s', role);
END $$;
COMMENT ON FUNCTION palisade.grant_writer(regrole) IS
    'Lets a role seal, enter and check, and nothing else: no right on the fence itself.';
