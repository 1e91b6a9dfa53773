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

-- An entry is one line in a transaction-local setting, one setting per stripe:
--     <transaction> <resource> <token> <holder>                               an admitted one
--     <transaction> !<resource> <outcome> <presented> <holder> <fence or ->   one that was refused
-- It is stamped with the transaction, so that no copy left on a pooled connection counts afterwards.
--
-- A statement's functions are set up anew in every transaction, at about 0.5 us for each name in them. So the
-- first part of open, enter, check and of the triggers, the one that an admitted writer runs, has as few as it
-- can: the fence's row brings the texts along.
ALTER TABLE palisade.fence
    ADD COLUMN setting text COLLATE "C" GENERATED ALWAYS AS ('palisade.e' || palisade.stripe(resource)::text) STORED,
    ADD COLUMN entry text COLLATE "C"
        GENERATED ALWAYS AS (' ' || resource || ' ' || token::text || ' ' || holder) STORED;

CREATE FUNCTION palisade.enter(resource text, token bigint, holder text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    fence pg_catalog.int8;
    fence_holder pg_catalog.text COLLATE pg_catalog."C";
    outcome pg_catalog.text COLLATE pg_catalog."C" := 'ok';
    entries pg_catalog.text COLLATE pg_catalog."C";
    setting pg_catalog.text COLLATE pg_catalog."C";
    line pg_catalog.text COLLATE pg_catalog."C";
    found_line pg_catalog.text COLLATE pg_catalog."C";
BEGIN
    -- Lock first, read second, in two statements: a read whose snapshot is older than the lock could
    -- miss the seal it has waited for. (The lock's value is void, and never NULL.)
    -- CASE, because OR does not promise to evaluate its left side at all.
    IF (CASE WHEN pg_catalog.pg_advisory_xact_lock_shared(
            1346456649,
            pg_catalog.hashtext(resource COLLATE pg_catalog."C") OPERATOR(pg_catalog.&) 1023) IS NULL THEN true
        ELSE pg_catalog.current_setting('transaction_isolation')
            OPERATOR(pg_catalog.=) 'read committed' END)
    THEN
        -- Admitted, and nothing else is in the setting.
        PERFORM pg_catalog.set_config(f.setting,
                pg_catalog.pg_current_xact_id()::pg_catalog.text OPERATOR(pg_catalog.||) f.entry, true)
            FROM palisade.fence AS f
            WHERE f.resource OPERATOR(pg_catalog.=) enter.resource COLLATE pg_catalog."C"
                AND f.token OPERATOR(pg_catalog.=) enter.token
                AND f.holder OPERATOR(pg_catalog.=) enter.holder COLLATE pg_catalog."C"
                AND COALESCE(pg_catalog.current_setting(f.setting, true), '') OPERATOR(pg_catalog.=) '';
        IF FOUND THEN
            RETURN 'ok';
        END IF;
        SELECT f.token, f.holder INTO fence, fence_holder FROM palisade.fence AS f
            WHERE f.resource OPERATOR(pg_catalog.=) enter.resource COLLATE pg_catalog."C";
    ELSE
        -- The snapshot may be older than the lock; FOR SHARE fails (40001) if the row has changed since.
        SELECT f.token, f.holder INTO fence, fence_holder FROM palisade.fence AS f
            WHERE f.resource OPERATOR(pg_catalog.=) enter.resource COLLATE pg_catalog."C" FOR SHARE;
    END IF;
    IF NOT COALESCE(token OPERATOR(pg_catalog.=) fence
        AND holder COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) fence_holder, false) THEN
        -- What is in the table was checked by it; what is not must not get into an entry unchecked.
        IF resource IS NULL OR token IS NULL OR holder IS NULL
            OR token OPERATOR(pg_catalog.<) 1 OR token OPERATOR(pg_catalog.>) 9007199254740991
            OR holder COLLATE pg_catalog."C" OPERATOR(pg_catalog.!~) '^[0-9a-f]{32}$'
            OR pg_catalog.octet_length(resource) OPERATOR(pg_catalog.>) 256
            OR resource COLLATE pg_catalog."C" OPERATOR(pg_catalog.!~)
                '^[A-Za-z0-9._:-]+(/[A-Za-z0-9._:-]+)*$' THEN
            RAISE EXCEPTION 'not a grant: resource %, token %, holder %',
                pg_catalog.left(resource, 256), token, pg_catalog.left(holder, 64)
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        outcome := CASE WHEN fence IS NULL OR token OPERATOR(pg_catalog.>) fence THEN 'unsealed'
            WHEN token OPERATOR(pg_catalog.<) fence THEN 'stale' ELSE 'collision' END;
    END IF;
    setting := 'palisade.e' OPERATOR(pg_catalog.||)
        (pg_catalog.hashtext(resource COLLATE pg_catalog."C") OPERATOR(pg_catalog.&) 1023)::pg_catalog.text;
    line := pg_catalog.pg_current_xact_id()::pg_catalog.text OPERATOR(pg_catalog.||)
        CASE WHEN outcome OPERATOR(pg_catalog.=) 'ok' THEN ' ' ELSE ' !' END OPERATOR(pg_catalog.||)
        resource OPERATOR(pg_catalog.||)
        CASE WHEN outcome OPERATOR(pg_catalog.=) 'ok' THEN ' '
            ELSE ' ' OPERATOR(pg_catalog.||) outcome OPERATOR(pg_catalog.||) ' ' END OPERATOR(pg_catalog.||)
        token::pg_catalog.text OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) holder;
    IF outcome OPERATOR(pg_catalog.<>) 'ok' THEN
        line := line OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||)
            COALESCE(fence::pg_catalog.text, '-');
    END IF;
    entries := COALESCE(pg_catalog.current_setting(setting, true), '');
    IF pg_catalog.starts_with(
        entries, pg_catalog.pg_current_xact_id()::pg_catalog.text OPERATOR(pg_catalog.||) ' ') THEN
        found_line := palisade.entry_line(resource);
        IF found_line OPERATOR(pg_catalog.=) line THEN
            RETURN outcome;
        ELSIF found_line IS NOT NULL THEN
            RAISE EXCEPTION 'this transaction has entered % before, with another grant or outcome', resource
                USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
        line := entries OPERATOR(pg_catalog.||) E'\n' OPERATOR(pg_catalog.||) line;
    END IF;
    -- The cheapest way to call a function.
    IF pg_catalog.set_config(setting, line, true) IS NULL THEN END IF;
    RETURN outcome;
END $$;
COMMENT ON FUNCTION palisade.enter(text, bigint, text) IS
    'Records in this transaction whether the grant is admitted: ok, stale, unsealed or collision.';

-- What the Rust library sends with BEGIN: enter, and a cursor if the grant is admitted. FETCH of it, before
-- COMMIT, costs less than any check: it fails in every transaction but this, and in one that has failed. It
-- takes one text, ' <resource> <token> <holder>', because each argument costs a call about 3 us.
CREATE PROCEDURE palisade.open(entry text) LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    admitted pg_catalog.refcursor := 'palisade_admitted';
BEGIN
    -- The lock and the read of enter; see there.
    IF (CASE WHEN pg_catalog.pg_advisory_xact_lock_shared(
            1346456649,
            pg_catalog.hashtext(pg_catalog.split_part(entry, ' ', 2) COLLATE pg_catalog."C")
                OPERATOR(pg_catalog.&) 1023) IS NULL THEN true
        ELSE pg_catalog.current_setting('transaction_isolation')
            OPERATOR(pg_catalog.=) 'read committed' END)
    THEN
        PERFORM pg_catalog.set_config(f.setting,
                pg_catalog.pg_current_xact_id()::pg_catalog.text OPERATOR(pg_catalog.||) f.entry, true)
            FROM palisade.fence AS f
            WHERE f.resource OPERATOR(pg_catalog.=)
                    pg_catalog.split_part(open.entry, ' ', 2) COLLATE pg_catalog."C"
                AND f.entry OPERATOR(pg_catalog.=) open.entry COLLATE pg_catalog."C";
    END IF;
    IF NOT FOUND THEN
        IF palisade.enter(pg_catalog.split_part(entry, ' ', 2),
            pg_catalog.split_part(entry, ' ', 3)::pg_catalog.int8, pg_catalog.split_part(entry, ' ', 4))
            OPERATOR(pg_catalog.<>) 'ok' THEN
            RETURN;
        END IF;
    END IF;
    OPEN admitted NO SCROLL FOR
        SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text::pg_catalog.int8 AS xact;
END $$;
COMMENT ON PROCEDURE palisade.open(text) IS
    'enter for the library, first in its transaction: FETCH palisade_admitted succeeds if it was admitted.';

-- The entry of a resource in this transaction; NULL if there is none.
CREATE FUNCTION palisade.entry_line(resource text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entries text COLLATE "C" :=
        E'\n' || current_setting('palisade.e' || (hashtext(resource COLLATE "C") & 1023), true);
    stamp text COLLATE "C" := E'\n' || pg_current_xact_id_if_assigned()::text || ' ';
    at integer := strpos(entries, stamp || resource COLLATE "C" || ' ');
BEGIN
    IF at = 0 THEN
        at := strpos(entries, stamp || '!' || resource COLLATE "C" || ' ');
    END IF;
    IF at > 0 THEN
        RETURN split_part(substr(entries, at), E'\n', 2);
    END IF;
    RETURN NULL;
END $$;

-- Word by word: transaction, resource, outcome, presented, holder, and the fence at that time, or '-'.
CREATE FUNCTION palisade.entry(resource text) RETURNS text[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    words text[] COLLATE "C" := string_to_array(palisade.entry_line(resource) COLLATE "C", ' ');
BEGIN
    IF starts_with(words[2], '!') THEN
        RETURN ARRAY[words[1], resource] || words[3:];
    ELSIF words IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN words[1:2] || 'ok'::text || words[3:4] || words[3];
END $$;

-- Raises what an entry that is not good says, or that there is none.
CREATE FUNCTION palisade.refuse_entry(resource text, presented bigint, act text, "table" text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entry text[] := palisade.entry(resource);
BEGIN
    IF entry IS NULL THEN
        PERFORM palisade.refuse('unguarded', resource, presented, NULL, act, "table");
    END IF;
    PERFORM palisade.refuse(entry[3], resource, entry[4]::bigint,
        CASE WHEN entry[6] <> '-' THEN entry[6]::bigint END, NULL, NULL);
END $$;

CREATE FUNCTION palisade.check(
    resource text, token bigint, holder text, entered pg_catalog.bool DEFAULT false
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    xact pg_catalog.int8;
BEGIN
    -- The lock and the read of enter; see there.
    IF (CASE WHEN entered THEN false
        WHEN pg_catalog.pg_advisory_xact_lock_shared(
            1346456649,
            pg_catalog.hashtext(resource COLLATE pg_catalog."C") OPERATOR(pg_catalog.&) 1023) IS NULL THEN true
        ELSE pg_catalog.current_setting('transaction_isolation')
            OPERATOR(pg_catalog.=) 'read committed' END)
    THEN
        SELECT CASE WHEN pg_catalog.set_config(f.setting,
                    pg_catalog.pg_current_xact_id()::pg_catalog.text OPERATOR(pg_catalog.||) f.entry, true) IS NOT NULL
                THEN pg_catalog.pg_current_xact_id()::pg_catalog.text::pg_catalog.int8 END
            INTO xact FROM palisade.fence AS f
            WHERE f.resource OPERATOR(pg_catalog.=) "check".resource COLLATE pg_catalog."C"
                AND f.token OPERATOR(pg_catalog.=) "check".token
                AND f.holder OPERATOR(pg_catalog.=) "check".holder COLLATE pg_catalog."C"
                AND COALESCE(pg_catalog.current_setting(f.setting, true), '') OPERATOR(pg_catalog.=) '';
        IF FOUND THEN
            RETURN xact;
        END IF;
    END IF;
    IF entered THEN
        -- The caller has entered at BEGIN. No such entry: its transaction was ended by hand, or its settings were
        -- reset.
        IF palisade.entry_line(resource) OPERATOR(pg_catalog.=) pg_catalog.concat(
            pg_catalog.pg_current_xact_id(), ' ', resource, ' ', token, ' ', holder) COLLATE pg_catalog."C" THEN
            RETURN pg_catalog.pg_current_xact_id()::pg_catalog.text::pg_catalog.int8;
        END IF;
        IF palisade.refuse_entry(resource, token, 'commit', NULL) IS NULL THEN END IF;
    ELSIF palisade.enter(resource, token, holder) OPERATOR(pg_catalog.<>) 'ok' THEN
        IF palisade.refuse_entry(resource, token, 'check', NULL) IS NULL THEN END IF;
    END IF;
    RETURN pg_catalog.pg_current_xact_id()::pg_catalog.text::pg_catalog.int8;
END $$;
COMMENT ON FUNCTION palisade.check(text, bigint, text, boolean) IS
    'Like enter, but raises unless the grant is admitted. Returns the id of the transaction.';

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
