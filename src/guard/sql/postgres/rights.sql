-- Runs after the steps of an install, which revoke everything from PUBLIC. Everybody may be told why a
-- write is refused, and make a partition of a guarded table, if it is theirs; what writers and owners need
-- beyond that, grant_writer and grant_owner give.
DO $$
DECLARE
    function regprocedure;
BEGIN
    GRANT USAGE ON SCHEMA palisade TO PUBLIC;
    GRANT SELECT ON palisade.guards TO PUBLIC;
    FOR function IN
        SELECT p.oid FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'palisade'::regnamespace AND (p.proname ~ '^(rows|whole)_[0-9a-f]{32}$'
            OR p.proname IN ('refuse', 'entry', 'entry_line', 'refuse_entry', 'refuse_row', 'refuse_truncate', 'family', 'root',
                'roots', 'arguments', 'scope', 'row_function', 'whole_function', 'put_guard', 'is_name'))
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', function);
    END LOOP;
END $$;
