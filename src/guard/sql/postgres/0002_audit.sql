-- What goes past the guard in this database, or may. An `error` is open now; a `warning` is not.
CREATE FUNCTION palisade.audit()
    RETURNS TABLE (severity text, finding text, object text, resource text, problem text, advice text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH guard AS (
        SELECT g.*, palisade.scope(g.arguments) AS scope, CASE WHEN cardinality(g.arguments) = 1
            THEN format('SELECT palisade.protect(%L, %L)', palisade.root(g."table"), g.arguments[1])
            ELSE format('SELECT palisade.protect(%L, resource_columns => %L, resource_prefix => %L)',
                palisade.root(g."table"), g.arguments[2:], NULLIF(rtrim(g.arguments[1], '/'), ''))
            END AS protect
        FROM palisade.guards AS g
    ), main AS (
        SELECT * FROM guard AS g WHERE g.trigger = 'zz_palisade_guard'
    ), kin AS (
        SELECT i.inhparent::regclass AS parent, i.inhrelid::regclass AS child FROM pg_inherits AS i
    ), lost AS (
        SELECT count(*) AS fences, min(f.resource) AS resource FROM palisade.fence AS f
        WHERE f.history IS DISTINCT FROM palisade.history() AND NOT pg_is_in_recovery()
    )
    SELECT 'error', 'weak-trigger', g."table"::text, g.scope,
        format('trigger %s is %s: some or all writes go past it', g.trigger,
            CASE g.state WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'for replica sessions only'
                ELSE 'not for replica sessions' END),
        g.protect FROM guard AS g WHERE g.state <> 'A'
    UNION ALL
    SELECT 'error', 'altered-trigger', g."table"::text, g.scope,
        format('trigger %s is not what palisade.protect makes', g.trigger), g.protect
        FROM guard AS g WHERE NOT g.sound
    UNION ALL
    SELECT 'error', 'open-below', k.child::text, p.scope,
        format('it is a partition or a child of %s and has no guard: statements that name it pass', k.parent),
        p.protect FROM main AS p JOIN kin AS k ON k.parent = p."table"
        WHERE NOT EXISTS (SELECT FROM main AS c WHERE c."table" = k.child)
    UNION ALL
    SELECT 'error', 'open-above', k.parent::text, c.scope,
        format('%s below it is guarded and it is not: it is written through it', k.child),
        c.protect FROM main AS c JOIN kin AS k ON k.child = c."table"
        WHERE NOT EXISTS (SELECT FROM main AS p WHERE p."table" = k.parent)
    UNION ALL
    SELECT 'error', 'mixed', k.child::text, c.scope,
        format('it is guarded for %s, but %s above it for %s: it is written through that', c.scope, k.parent, p.scope),
        format('SELECT palisade.unprotect(%L); %s', palisade.root(k.parent), p.protect)
        FROM main AS p JOIN kin AS k ON k.parent = p."table" JOIN main AS c ON c."table" = k.child
        WHERE c.arguments <> p.arguments
    UNION ALL
    SELECT 'error', 'open-to-truncate', g."table"::text, g.scope, 'TRUNCATE takes rows of every resource', g.protect
        FROM main AS g WHERE cardinality(g.arguments) > 1 AND NOT EXISTS (
            SELECT FROM guard AS t WHERE t."table" = g."table" AND t.trigger = 'zz_palisade_truncate')
    UNION ALL
    SELECT 'error', 'detached', t."table"::text, t.scope,
        'it was a partition of a guarded table, and has lost the guard of its rows', t.protect
        FROM guard AS t WHERE t.trigger = 'zz_palisade_truncate' AND NOT EXISTS (
            SELECT FROM main AS g WHERE g."table" = t."table")
    UNION ALL
    SELECT 'error', 'ambiguous-column', g."table"::text, g.scope,
        format('the text of column %I depends on the settings of a session: one row has several resources', a.attname),
        'Give it a textual type, an integer, numeric, uuid, bool or an enum; or guard by other columns'
        FROM main AS g JOIN pg_attribute AS a ON a.attrelid = g."table" AND a.attname = ANY (g.arguments[2:])
        WHERE NOT a.attisdropped AND NOT palisade.has_one_text(a.atttypid)
    UNION ALL
    SELECT 'error', 'replicated-into', g."table"::text, g.scope,
        format('subscription %s writes it: logical replication goes past the guard of a whole table', s.subname),
        'Guard its rows (palisade.protect with resource_columns), or end the subscription to it'
        FROM main AS g JOIN pg_subscription_rel AS r ON r.srrelid = g."table"
        JOIN pg_subscription AS s ON s.oid = r.srsubid
        WHERE cardinality(g.arguments) = 1 AND s.subenabled
    UNION ALL
    SELECT 'error', 'fence-open', 'palisade.fence', NULL,
        format('trigger %s, which keeps fences from being lowered and deleted, is gone, altered or not ALWAYS', k.name),
        CASE WHEN EXISTS (SELECT FROM pg_trigger AS t
                WHERE t.tgrelid = 'palisade.fence'::regclass AND t.tgname = k.name AND t.tgtype = k.type)
            THEN format('ALTER TABLE palisade.fence ENABLE ALWAYS TRIGGER %s', k.name)
            ELSE format('CREATE TRIGGER %s BEFORE %s EXECUTE FUNCTION palisade.keep_fence(); '
                'ALTER TABLE palisade.fence ENABLE ALWAYS TRIGGER %1$s', k.name, k.events) END
        FROM (VALUES ('keep_rows', 23, 'INSERT OR UPDATE ON palisade.fence FOR EACH ROW'),
            ('keep_all', 42, 'DELETE OR TRUNCATE ON palisade.fence FOR EACH STATEMENT')) AS k (name, type, events)
        WHERE NOT EXISTS (SELECT FROM pg_trigger AS t
            WHERE t.tgrelid = 'palisade.fence'::regclass AND t.tgname = k.name AND t.tgtype = k.type
                AND t.tgenabled = 'A' AND t.tgqual IS NULL AND t.tgfoid = 'palisade.keep_fence'::regproc)
    UNION ALL
    SELECT 'error', 'other-history', 'palisade.fence', l.resource,
        format('%s fences, this one first, were sealed before this database was restored, failed over or moved: '
            'later seals may be lost, and stale tokens admitted', l.fences),
        'Acquire and seal each again: SELECT resource FROM palisade.fence WHERE history <> palisade.history()'
        FROM lost AS l WHERE l.fences > 0
    UNION ALL
    SELECT 'warning', 'column-gone', g."table"::text, g.scope,
        'a column that names the resource is gone or renamed: every write fails',
        format('SELECT palisade.unprotect(%L), then palisade.protect with its present columns', palisade.root(g."table"))
        FROM main AS g WHERE EXISTS (SELECT FROM unnest(g.arguments[2:]) AS c WHERE NOT EXISTS (
            SELECT FROM pg_attribute AS a WHERE a.attrelid = g."table" AND a.attname = c AND NOT a.attisdropped))
    UNION ALL
    SELECT 'warning', 'never-sealed', g."table"::text, g.scope,
        'there is no fence for it: no write is admitted', 'Acquire its lease and seal it; or mend a misspelt name'
        FROM main AS g WHERE palisade.root(g."table") = g."table" AND NOT EXISTS (
            SELECT FROM palisade.fence AS f WHERE f.resource = g.arguments[1] COLLATE "C"
                OR (cardinality(g.arguments) > 1 AND starts_with(f.resource, g.arguments[1])))
    UNION ALL
    SELECT 'warning', 'partitions-unwatched', 'palisade_partitions', NULL,
        'partitions that are added to a guarded table are open until palisade.protect runs again',
        'As a superuser: SELECT palisade.watch_partitions()'
        WHERE EXISTS (SELECT FROM main AS g JOIN pg_class AS c ON c.oid = g."table" WHERE c.relhassubclass)
            AND NOT EXISTS (SELECT FROM pg_event_trigger AS e
                WHERE e.evtname = 'palisade_partitions' AND e.evtenabled = 'A'
                    AND e.evtfoid = 'palisade.guard_partitions'::regproc)
    UNION ALL
    SELECT DISTINCT 'warning', 'writer-owns', g."table"::text, g.scope,
        format('role %s may enter and owns the table: it can disable the guard', r.rolname),
        'Let writers use a role that owns nothing, with palisade.grant_writer'
        FROM main AS g JOIN pg_class AS c ON c.oid = g."table" JOIN pg_roles AS r ON r.oid = c.relowner
        WHERE r.rolcanlogin AND NOT r.rolsuper
            AND has_function_privilege(r.oid, 'palisade.enter(text, bigint, text)', 'EXECUTE')
    UNION ALL
    SELECT 'warning', 'setting', s.name, NULL, w.problem, w.advice
        FROM (VALUES
            ('fsync', 'off', 'a crash of the machine may take seals back', 'Set it to on'),
            ('full_page_writes', 'off', 'a crash of the machine may damage fences', 'Set it to on'),
            ('idle_in_transaction_session_timeout', '0', 'a writer that hangs keeps seals waiting without end',
                'Set it to a little more than the longest pause inside a transaction')
        ) AS w (name, bad, problem, advice)
        JOIN pg_settings AS s ON s.name = w.name AND s.setting = w.bad
    UNION ALL
    SELECT 'warning', 'asynchronous-standby', r.application_name, NULL,
        'a failover to it can lose seals that were acknowledged',
        'Name it in synchronous_standby_names; else seal every resource after a failover, before writing'
        FROM pg_stat_replication AS r WHERE current_setting('synchronous_standby_names') = ''
            AND r.application_name NOT LIKE 'pg\_%' AND NOT EXISTS (
                SELECT FROM pg_replication_slots AS s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
    ORDER BY 1, 2, 3
$$;
COMMENT ON FUNCTION palisade.audit() IS
    'What goes past the guard (error), or may (warning), and what to do about it.';

REVOKE ALL ON ALL ROUTINES IN SCHEMA palisade FROM PUBLIC;
