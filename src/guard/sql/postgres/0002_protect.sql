-- Version 2 of the schema `palisade`: which tables are guarded, and for what.
--
-- A guarded table has the trigger zz_palisade_guard, on itself and on everything below it. Its arguments say
-- what it asks for: one, a resource for the whole table; more, a prefix (ending in '/', or empty) and the
-- columns whose values follow it, a resource for each row. Beside the latter stands zz_palisade_truncate.

-- A table with everything below it, the higher first: a row trigger of a partitioned table is cloned to
-- what is below, and cannot be made where one of its name is there before.
CREATE FUNCTION palisade.family(root regclass) RETURNS SETOF regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE family (member, depth) AS (
        SELECT root::oid, 0
        UNION ALL
        SELECT i.inhrelid, f.depth + 1 FROM family AS f JOIN pg_inherits AS i ON i.inhparent = f.member
    )
    SELECT f.member::regclass FROM family AS f GROUP BY f.member ORDER BY max(f.depth), f.member
$$;

-- The topmost table that a table is written through; of several, one.
CREATE FUNCTION palisade.root(member regclass) RETURNS regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE above (parent, depth) AS (
        SELECT member::oid, 0
        UNION ALL
        SELECT i.inhparent, a.depth + 1 FROM above AS a JOIN pg_inherits AS i ON i.inhrelid = a.parent
    )
    SELECT a.parent::regclass FROM above AS a ORDER BY a.depth DESC, a.parent LIMIT 1
$$;

-- All of them, the guarded first.
CREATE FUNCTION palisade.roots(member regclass) RETURNS SETOF regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE above (parent) AS (
        SELECT member::oid
        UNION
        SELECT i.inhparent FROM above AS a JOIN pg_inherits AS i ON i.inhrelid = a.parent
    )
    SELECT a.parent::regclass FROM above AS a
        WHERE NOT EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = a.parent)
        ORDER BY NOT EXISTS (SELECT FROM pg_trigger AS t
            WHERE t.tgrelid = a.parent AND t.tgname = 'zz_palisade_guard'), a.parent
$$;

-- Whether a value of this type has one text whatever a session has set (DateStyle, extra_float_digits,
-- search_path, …): else one row would have several resources, each with a holder of its own.
CREATE FUNCTION palisade.has_one_text(type oid) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE base (type, below, kind) AS (
        SELECT t.oid, t.typbasetype, t.typtype FROM pg_type AS t WHERE t.oid = has_one_text.type
        UNION ALL
        SELECT t.oid, t.typbasetype, t.typtype FROM base AS b JOIN pg_type AS t ON t.oid = b.below
    )
    SELECT COALESCE(bool_or(b.kind = 'e' OR b.type IN ('text'::regtype, 'bpchar'::regtype, 'name'::regtype,
            '"char"'::regtype, 'bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype,
            'numeric'::regtype, 'oid'::regtype, 'uuid'::regtype)
        OR EXISTS (SELECT FROM pg_cast AS k
            WHERE k.castsource = b.type AND k.casttarget = 'text'::regtype AND k.castmethod = 'b')), false)
        FROM base AS b WHERE b.kind <> 'd'
$$;

-- pg_trigger.tgargs: each argument ends with a zero byte.
CREATE FUNCTION palisade.arguments(packed bytea, count integer) RETURNS text[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unpacked text[] := '{}';
    rest bytea := packed;
BEGIN
    FOR index IN 1..count LOOP
        unpacked := unpacked
            || convert_from(substr(rest, 1, position('\x00'::bytea IN rest) - 1), getdatabaseencoding());
        rest := substr(rest, position('\x00'::bytea IN rest) + 1);
    END LOOP;
    RETURN unpacked;
END $$;

-- What the arguments of a guard ask for, as people read it: `orders`, or `accounts/{shard}/{id}`.
CREATE FUNCTION palisade.scope(arguments text[]) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT arguments[1] || COALESCE('{' || array_to_string(arguments[2:], '}/{') || '}', '')
        WHERE cardinality(arguments) > 1
    UNION ALL SELECT arguments[1] WHERE cardinality(arguments) = 1
$$;

CREATE FUNCTION palisade.is_name(resource text) RETURNS boolean
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT octet_length(resource) <= 256 AND resource ~ '^[A-Za-z0-9._:-]+(/[A-Za-z0-9._:-]+)*$'
        AND resource !~ '(^|/)\.\.?(/|$)'
$$;

-- The functions behind the guards of whole tables for this resource, and behind the row guards of these columns.
CREATE FUNCTION palisade.whole_function(resource text) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'palisade.whole_' || md5(resource)
$$;

CREATE FUNCTION palisade.row_function(columns text[]) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'palisade.rows_' || md5(columns::text)
$$;

CREATE FUNCTION palisade.refuse_truncate() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE on %.%: it would take the rows of every resource', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'feature_not_supported', TABLE = TG_TABLE_NAME,
        HINT = 'Each row is guarded for a resource of its own: DELETE the rows of those that were entered.';
END $$;

CREATE FUNCTION palisade.refuse_row(
    resource text, parts text[], act text, "schema" text, "table" text
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF array_position(parts, NULL) IS NOT NULL THEN
        RAISE EXCEPTION '% on %.%: no resource follows from NULL', act, "schema", "table"
            USING ERRCODE = 'null_value_not_allowed', TABLE = "table";
    ELSIF strpos(concat(VARIADIC parts), '/') > 0 THEN
        RAISE EXCEPTION '% on %.%: a value with a / would name the resource of another row', act, "schema", "table"
            USING ERRCODE = 'invalid_parameter_value', TABLE = "table";
    END IF;
    IF palisade.is_name(resource) AND palisade.entry_line(resource) IS NOT NULL THEN
        PERFORM palisade.refuse_entry(resource, NULL, act, "table");
    END IF;
    -- A value may be of any length; no name is longer than this, and none has a '~'.
    PERFORM palisade.refuse('unguarded',
        CASE WHEN octet_length(resource) > 256 THEN left(resource, 256) || '~' ELSE resource END, NULL, NULL,
        concat(act, ' on ', "schema", '.', "table"), "table");
END $$;

CREATE VIEW palisade.guards AS
SELECT t.tgrelid::pg_catalog.regclass AS "table", t.tgname::pg_catalog.text AS trigger,
    t.tgenabled AS state, a.arguments,
    -- What protect has made, and nothing that resembles it.
    (t.tgqual IS NULL AND t.tgattr = ''::pg_catalog.int2vector AND t.tgconstraint = 0
        AND CASE
            WHEN t.tgname = 'zz_palisade_truncate' THEN
                t.tgtype = 34 AND t.tgfoid = 'palisade.refuse_truncate'::pg_catalog.regproc
            WHEN t.tgnargs = 1 THEN t.tgtype = 62
                AND t.tgfoid = pg_catalog.to_regproc(palisade.whole_function(a.arguments[1]))
            ELSE t.tgtype = 29
                AND t.tgfoid = pg_catalog.to_regproc(palisade.row_function(a.arguments[2:]))
        END) IS TRUE AS sound
FROM pg_catalog.pg_trigger AS t,
    LATERAL (SELECT palisade.arguments(t.tgargs, t.tgnargs) AS arguments) AS a
WHERE t.tgname IN ('zz_palisade_guard', 'zz_palisade_truncate');

-- Guards one table, and not what is below it. `repair` also puts right what somebody has weakened.
CREATE FUNCTION palisade.put_guard(member regclass, arguments text[], repair boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted record;
    found palisade.guards;
    is_rows boolean := cardinality(arguments) > 1;
    row_function text := palisade.row_function(arguments[2:]);
    whole_function text := palisade.whole_function(arguments[1]);
BEGIN
    IF (SELECT c.relkind NOT IN ('r', 'p') OR c.relnamespace = 'palisade'::regnamespace
        FROM pg_class AS c WHERE c.oid = member) THEN
        RAISE EXCEPTION '% is not a table that can be protected', member USING ERRCODE = 'wrong_object_type';
    ELSIF is_rows AND to_regproc(row_function) IS NULL THEN
        PERFORM palisade.make_row_function(arguments[2:]);
    END IF;
    FOR wanted IN SELECT * FROM (VALUES
        ('zz_palisade_guard', true, CASE WHEN is_rows THEN 'AFTER INSERT OR UPDATE OR DELETE'
            ELSE 'BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE' END, CASE WHEN is_rows THEN 'ROW' ELSE 'STATEMENT' END,
            CASE WHEN is_rows THEN row_function ELSE whole_function END),
        ('zz_palisade_truncate', is_rows, 'BEFORE TRUNCATE', 'STATEMENT', 'palisade.refuse_truncate')
    ) AS v (trigger, needed, events, each, function) LOOP
        SELECT * INTO found FROM palisade.guards AS g WHERE g."table" = member AND g.trigger = wanted.trigger;
        IF found.sound AND wanted.needed AND found.arguments <> arguments THEN
            RAISE EXCEPTION '% is protected as %: unprotect it first', member, palisade.scope(found.arguments)
                USING ERRCODE = 'duplicate_object';
        ELSIF found.trigger IS NOT NULL AND NOT (found.sound AND wanted.needed) THEN
            EXECUTE format('DROP TRIGGER %I ON %s', wanted.trigger, member);
        END IF;
        IF wanted.needed AND found.sound IS NOT TRUE THEN
            IF NOT is_rows AND to_regproc(whole_function) IS NULL THEN
                PERFORM palisade.make_whole_function(arguments[1]);
            END IF;
            EXECUTE format('CREATE TRIGGER %I %s ON %s FOR EACH %s EXECUTE FUNCTION %s(%s)',
                wanted.trigger, wanted.events, member, wanted.each, wanted.function,
                (SELECT string_agg(quote_literal(a), ', ' ORDER BY n)
                    FROM unnest(arguments) WITH ORDINALITY AS u (a, n)));
        END IF;
        -- ALWAYS: else session_replication_role = replica goes round it.
        IF wanted.needed AND (found.sound IS NOT TRUE OR (repair AND found.state <> 'A')) THEN
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', member, wanted.trigger);
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION palisade.protect_family("table" regclass, arguments text[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    member regclass;
BEGIN
    IF EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = "table") THEN
        RAISE EXCEPTION '% is a partition or a child: protect its root, through which it is written too', "table"
            USING ERRCODE = 'wrong_object_type';
    END IF;
    -- Before it is looked at: a partition that another transaction has just made would be passed over. Writers
    -- are not in the way of this lock.
    EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', "table");
    -- A child of two parents has its guard before the other of them has.
    PERFORM set_config('palisade.protecting', 'on', true);
    FOR member IN SELECT palisade.family("table") LOOP
        PERFORM palisade.put_guard(member, arguments, true);
    END LOOP;
    PERFORM set_config('palisade.protecting', '', true);
END $$;

CREATE FUNCTION palisade.protect("table" regclass, resource text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF "table" IS NULL OR palisade.is_name(resource) IS NOT TRUE THEN
        RAISE EXCEPTION 'not the name of a resource: %', left(resource, 256)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM palisade.protect_family("table", ARRAY[resource]);
END $$;
COMMENT ON FUNCTION palisade.protect(regclass, text) IS
    'Refuses statements that write the table, or what is below it, without an entry for the resource.';

CREATE FUNCTION palisade.protect("table" regclass, resource_columns text[], resource_prefix text DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing text;
BEGIN
    IF "table" IS NULL OR resource_columns IS NULL OR palisade.is_name(resource_prefix) IS FALSE THEN
        RAISE EXCEPTION 'not the beginning of resources: %', left(resource_prefix, 256)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT c INTO missing FROM unnest(resource_columns) AS c WHERE NOT EXISTS (
        SELECT FROM pg_attribute AS a
        WHERE a.attrelid = "table" AND a.attname = c AND a.attnum > 0 AND NOT a.attisdropped);
    IF FOUND THEN
        RAISE EXCEPTION '% has no column %', "table", quote_nullable(missing) USING ERRCODE = 'undefined_column';
    END IF;
    SELECT a.attname INTO missing FROM pg_attribute AS a
        WHERE a.attrelid = "table" AND a.attname = ANY (resource_columns) AND NOT palisade.has_one_text(a.atttypid);
    IF FOUND THEN
        RAISE EXCEPTION 'the text of column % of % depends on the settings of a session', quote_ident(missing), "table"
            USING ERRCODE = 'datatype_mismatch', HINT = 'Guard by columns of a textual type, an integer, numeric, uuid, bool or an enum.';
    END IF;
    PERFORM palisade.protect_family("table", COALESCE(resource_prefix || '/', '') || resource_columns);
END $$;
COMMENT ON FUNCTION palisade.protect(regclass, text[], text) IS
    'Refuses rows to be written, before and after, without an entry for the resource that the prefix and the '
    'values of the columns name, joined by /; and TRUNCATE. A value that is NULL or has a / is refused.';

CREATE FUNCTION palisade.unprotect("table" regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    member regclass;
BEGIN
    IF EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = "table") THEN
        RAISE EXCEPTION '% is a partition or a child: unprotect its root', "table"
            USING ERRCODE = 'wrong_object_type';
    END IF;
    FOR member IN SELECT palisade.family("table") LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS zz_palisade_guard ON %s', member);
        EXECUTE format('DROP TRIGGER IF EXISTS zz_palisade_truncate ON %s', member);
    END LOOP;
END $$;

-- What is created or attached below a guarded table is guarded with it. (Its owner runs this: the function
-- needs no rights beyond those that made the partition.)
CREATE FUNCTION palisade.guard_partitions() RETURNS event_trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    top regclass;
    member regclass;
    wanted text[];
BEGIN
    FOR top IN SELECT r FROM (SELECT DISTINCT c.objid::regclass AS changed FROM pg_event_trigger_ddl_commands() AS c
            WHERE c.classid = 'pg_class'::regclass AND c.object_type IN ('table', 'foreign table')) AS c,
            palisade.roots(c.changed) AS r
        WHERE EXISTS (SELECT FROM pg_inherits AS i WHERE c.changed IN (i.inhrelid, i.inhparent))
    LOOP
        wanted := (SELECT g.arguments FROM palisade.guards AS g
            WHERE g."table" = top AND g.trigger = 'zz_palisade_guard' AND g.sound);
        FOR member IN SELECT f FROM palisade.family(top) AS f
            LEFT JOIN palisade.guards AS g ON g."table" = f AND g.trigger = 'zz_palisade_guard'
            LEFT JOIN palisade.guards AS t ON t."table" = f AND t.trigger = 'zz_palisade_truncate'
            WHERE g.arguments IS DISTINCT FROM wanted
                OR (t.sound IS NOT TRUE AND cardinality(wanted) > 1)
        LOOP
            IF wanted IS NULL AND current_setting('palisade.protecting', true) = 'on' THEN
                CONTINUE;
            ELSIF wanted IS NULL THEN
                RAISE EXCEPTION '% is protected, and % above it is not: it would be open', member, top
                    USING ERRCODE = 'object_not_in_prerequisite_state',
                    HINT = 'Protect the one above first, with palisade.protect, or unprotect the other.';
            END IF;
            PERFORM palisade.put_guard(member, wanted, false);
        END LOOP;
    END LOOP;
    -- A partition that was detached has lost the row guard that was its root's; its rows are what they were.
    FOR member, wanted IN SELECT t."table", t.arguments FROM palisade.guards AS t
        JOIN pg_class AS c ON c.oid = t."table"
        WHERE tg_tag = 'ALTER TABLE' AND t.trigger = 'zz_palisade_truncate'
            AND pg_has_role(c.relowner, 'USAGE') AND NOT EXISTS (
                SELECT FROM pg_trigger AS g WHERE g.tgrelid = t."table" AND g.tgname = 'zz_palisade_guard')
    LOOP
        PERFORM palisade.put_guard(member, wanted, false);
    END LOOP;
END $$;

CREATE FUNCTION palisade.watch_partitions() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_event_trigger AS e WHERE e.evtname = 'palisade_partitions') THEN
        CREATE EVENT TRIGGER palisade_partitions ON ddl_command_end
            WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'CREATE SCHEMA')
            EXECUTE FUNCTION palisade.guard_partitions();
    END IF;
    ALTER EVENT TRIGGER palisade_partitions ENABLE ALWAYS;
END $$;
COMMENT ON FUNCTION palisade.watch_partitions() IS
    'From here on, what is created or attached below a guarded table is guarded with it. For superusers.';

DO $$
BEGIN
    IF (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user) THEN
        PERFORM palisade.watch_partitions();
    END IF;
END $$;

CREATE FUNCTION palisade.grant_owner(role regrole) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION palisade.protect(regclass, text), '
        'palisade.protect(regclass, text[], text), palisade.protect_family(regclass, text[]), '
        'palisade.make_row_function(text[]), palisade.make_whole_function(text), palisade.unprotect(regclass), palisade.audit() TO %s', role);
END $$;
COMMENT ON FUNCTION palisade.grant_owner(regrole) IS
    'Lets a role protect and unprotect the tables it owns, and see what is open.';
