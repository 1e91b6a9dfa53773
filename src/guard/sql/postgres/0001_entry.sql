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
        -- Among hundreds of others it is seldom there at all.
        IF pg_catalog.strpos(entries, resource COLLATE pg_catalog."C" OPERATOR(pg_catalog.||) ' ')
            OPERATOR(pg_catalog.>) 0 THEN
            found_line := palisade.entry_line(resource);
        END IF;
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
        IF pg_catalog.strpos(
            E'\n' OPERATOR(pg_catalog.||) pg_catalog.current_setting('palisade.e' OPERATOR(pg_catalog.||)
                (pg_catalog.hashtext(resource COLLATE pg_catalog."C") OPERATOR(pg_catalog.&) 1023)
                    ::pg_catalog.text, true) OPERATOR(pg_catalog.||) E'\n',
            E'\n' OPERATOR(pg_catalog.||) pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text
                OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) resource COLLATE pg_catalog."C"
                OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) token::pg_catalog.text
                OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) holder OPERATOR(pg_catalog.||) E'\n'
        ) OPERATOR(pg_catalog.>) 0 THEN
            RETURN pg_catalog.pg_current_xact_id()::pg_catalog.text::pg_catalog.int8;
        END IF;
        IF palisade.entry_line(resource) IS NULL THEN
            IF palisade.refuse_entry(resource, token, 'commit', NULL) IS NULL THEN END IF;
        END IF;
    END IF;
    IF palisade.enter(resource, token, holder) OPERATOR(pg_catalog.<>) 'ok' THEN
        IF palisade.refuse_entry(resource, token, 'check', NULL) IS NULL THEN END IF;
    END IF;
    RETURN pg_catalog.pg_current_xact_id()::pg_catalog.text::pg_catalog.int8;
END $$;
COMMENT ON FUNCTION palisade.check(text, bigint, text, boolean) IS
    'Like enter, but raises unless the grant is admitted. Returns the id of the transaction.';
