-- Runs at every install, under the install lock. CREATE SCHEMA asks for a right on the database even
-- when the schema is there, so a role without it can still find that everything is installed.
DO $$
BEGIN
    IF to_regnamespace('palisade') IS NULL THEN
        CREATE SCHEMA palisade;
    END IF;
    IF to_regclass('palisade.migration') IS NULL THEN
        CREATE TABLE palisade.migration (
            version integer PRIMARY KEY,
            applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
        );
    END IF;
END $$;
