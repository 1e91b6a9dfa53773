-- Version 1: the fence, and the entries that guarded transactions leave while they run. Everywhere a bare
-- name would mean a temporary table first; inside of a trigger it means the trigger's own database.

CREATE TABLE main.palisade_fence (
    resource TEXT NOT NULL PRIMARY KEY,
    token INTEGER NOT NULL CHECK (typeof(token) = 'integer' AND token BETWEEN 1 AND 9007199254740991),
    holder TEXT NOT NULL CHECK (length(holder) = 32 AND holder NOT GLOB '*[^0-9a-f]*'),
    sealed_at INTEGER NOT NULL
) WITHOUT ROWID;

-- These also stop INSERT OR REPLACE, which deletes without firing DELETE triggers.
CREATE TRIGGER main.palisade_fence_insert BEFORE INSERT ON palisade_fence
WHEN EXISTS (
    SELECT 1 FROM palisade_fence AS f WHERE f.resource = NEW.resource
        AND (f.token > NEW.token OR (f.token = NEW.token AND f.holder <> NEW.holder)))
BEGIN
    SELECT RAISE(ABORT, 'a fence is never lowered, and has one holder for each token');
END;
CREATE TRIGGER main.palisade_fence_update BEFORE UPDATE ON palisade_fence
WHEN NEW.resource <> OLD.resource OR NEW.token < OLD.token
    OR (NEW.token = OLD.token AND NEW.holder <> OLD.holder)
BEGIN
    SELECT RAISE(ABORT, 'a fence is never lowered or renamed, and has one holder for each token');
END;
CREATE TRIGGER main.palisade_fence_delete BEFORE DELETE ON palisade_fence
BEGIN
    SELECT RAISE(ABORT, 'a fence is never deleted: without it every stale token is a first one');
END;

-- An entry lives inside one transaction: written after BEGIN IMMEDIATE, deleted before COMMIT. One that
-- is forgotten fails the COMMIT wherever foreign keys are enforced, for nothing can be in `never`.
CREATE TABLE main.palisade_never (id INTEGER NOT NULL PRIMARY KEY CHECK (id IS NULL));
CREATE TABLE main.palisade_entry (
    resource TEXT NOT NULL PRIMARY KEY,
    token INTEGER NOT NULL,
    holder TEXT NOT NULL,
    ends INTEGER NOT NULL DEFAULT 1
        REFERENCES palisade_never (id) DEFERRABLE INITIALLY DEFERRED
) WITHOUT ROWID;
