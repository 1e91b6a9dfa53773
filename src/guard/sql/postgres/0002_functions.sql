-- Guards of whole tables: one function for each resource, because what its text names costs half of what is
-- looked up in the trigger's arguments. It stands in the way of every statement, so every name in it is qualified.
CREATE FUNCTION palisade.make_whole_function(resource text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $make$
BEGIN
    IF palisade.is_name(resource) IS NOT TRUE THEN
        RAISE EXCEPTION 'not the name of a resource: %', left(resource, 256)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Beside the stripes and the lock of installers: one maker at a time.
    PERFORM pg_advisory_xact_lock(1346456649, 1025);
    IF to_regproc(palisade.whole_function(resource)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql AS %L', palisade.whole_function(resource),
        -- First what an admitted writer of one resource passes; then also one of neighbours in the stripe.
        format($body$
BEGIN
    IF pg_catalog.starts_with(pg_catalog.current_setting(%1$L, true),
        pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text OPERATOR(pg_catalog.||) %2$L) THEN
        RETURN NULL;
    ELSIF (palisade.entry(%3$L))[3] OPERATOR(pg_catalog.=) 'ok' THEN
        RETURN NULL;
    END IF;
    PERFORM palisade.refuse_entry(%3$L, NULL,
        pg_catalog.concat(TG_OP, ' on ', TG_TABLE_SCHEMA, '.', TG_TABLE_NAME), TG_TABLE_NAME);
    RETURN NULL;
END$body$, 'palisade.e' || palisade.stripe(resource), ' ' || resource || ' ', resource));
    -- Nobody can call it; a table's owner has to be allowed to put it behind a trigger.
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s() TO PUBLIC', palisade.whole_function(resource));
END $make$;

-- Row guards: one function for each list of columns, because a column that the text names costs a tenth of
-- one that is looked up in a JSON of the row. Every name in it is qualified, too. It runs AFTER:
-- what the table's own BEFORE triggers have made of the row is what is written.
-- A value with a / would make another row's name of it, and one with a space or a ! a part of an entry.
CREATE FUNCTION palisade.make_row_function(columns text[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $make$
DECLARE
    body text := 'DECLARE was pg_catalog.text COLLATE pg_catalog."C"; becomes pg_catalog.text COLLATE pg_catalog."C"; BEGIN';
    side record;
BEGIN
    IF (cardinality(columns) BETWEEN 1 AND 8) IS NOT TRUE OR array_position(columns, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'the resource of a row is made of 1 to 8 columns' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Beside the stripes and the lock of installers: one maker at a time.
    PERFORM pg_advisory_xact_lock(1346456649, 1025);
    IF to_regproc(palisade.row_function(columns)) IS NOT NULL THEN
        RETURN;
    END IF;
    FOR side IN SELECT * FROM (VALUES
        ('OLD', 'was', '<>', 'INSERT', '', 'IF TG_OP OPERATOR(pg_catalog.=) ''DELETE'' THEN RETURN NULL; END IF;'),
        ('NEW', 'becomes', '<>', 'DELETE', 'IF becomes OPERATOR(pg_catalog.=) was THEN RETURN NULL; END IF;', 'RETURN NULL;')
    ) AS v (row, variable, op, not_in, first, admitted) LOOP
        body := body || (SELECT format($part$
    IF TG_OP OPERATOR(pg_catalog.<>) %7$L THEN
        %2$s := TG_ARGV[0] OPERATOR(pg_catalog.||) %3$s;
        %8$s
        IF pg_catalog.strpos(
            E'\n' OPERATOR(pg_catalog.||) pg_catalog.current_setting('palisade.e' OPERATOR(pg_catalog.||)
                (pg_catalog.hashtext(%2$s) OPERATOR(pg_catalog.&) 1023)::pg_catalog.text, true),
            E'\n' OPERATOR(pg_catalog.||) pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text
                OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) %2$s OPERATOR(pg_catalog.||) ' '
        ) OPERATOR(pg_catalog.>) 0 %4$s
            AND pg_catalog.strpos(%2$s, ' ') OPERATOR(pg_catalog.=) 0
            AND pg_catalog.strpos(%2$s, '!') OPERATOR(pg_catalog.=) 0 THEN
            %6$s
        ELSE
            PERFORM palisade.refuse_row(%2$s, ARRAY[%5$s], TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME);
        END IF;
    END IF;$part$,
            NULL, side.variable,
            string_agg(format('%s.%I::pg_catalog.text COLLATE pg_catalog."C"', side.row, c),
                ' OPERATOR(pg_catalog.||) ''/'' OPERATOR(pg_catalog.||) ' ORDER BY n),
            string_agg(format(
                'AND pg_catalog.strpos(%s.%I::pg_catalog.text COLLATE pg_catalog."C", ''/'') OPERATOR(pg_catalog.=) 0',
                side.row, c), ' ' ORDER BY n),
            string_agg(format('%s.%I::pg_catalog.text COLLATE pg_catalog."C"', side.row, c), ', ' ORDER BY n),
            side.admitted, side.not_in, side.first)
            FROM unnest(columns) WITH ORDINALITY AS u (c, n));
    END LOOP;
    EXECUTE format('CREATE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql AS %L',
        palisade.row_function(columns), body || E'\n    RETURN NULL;\nEND');
    -- Nobody can call it; a table's owner has to be allowed to put it behind a trigger.
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s() TO PUBLIC', palisade.row_function(columns));
END $make$;
