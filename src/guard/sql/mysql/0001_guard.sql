-- Version 1: the fence, the entries that guarded transactions leave while they run, and the procedures that
-- any client calls. Statements are separated by a line of `-- next`. DDL commits by itself here, so each
-- of them may be run again by an installer that was cut short.
--
-- Every name is one of the database that holds the data: procedures and triggers look there for theirs.

CREATE TABLE IF NOT EXISTS palisade_fence (
    resource VARBINARY(256) NOT NULL PRIMARY KEY,
    token BIGINT NOT NULL CHECK (token BETWEEN 1 AND 9007199254740991),
    holder VARBINARY(32) NOT NULL CHECK (length(holder) = 32),
    -- Microseconds since 1970.
    sealed_at BIGINT NOT NULL
) ENGINE = InnoDB
-- next
-- An entry lives inside one transaction: written by palisade_enter, deleted by palisade_leave. The foreign
-- key is there because it stops TRUNCATE and DROP of the fence, which fire no trigger.
CREATE TABLE IF NOT EXISTS palisade_entry (
    stamp BIGINT UNSIGNED NOT NULL,
    resource VARBINARY(256) NOT NULL,
    token BIGINT NOT NULL,
    holder VARBINARY(32) NOT NULL,
    session BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (stamp, resource),
    KEY resource (resource),
    CONSTRAINT palisade_entry_fence FOREIGN KEY (resource) REFERENCES palisade_fence (resource)
) ENGINE = InnoDB
-- next
DROP PROCEDURE IF EXISTS palisade_refuse
-- next
-- Raises. SQLSTATE and error number tell the case. The text is JSON, and holds 128 characters at most: a
-- long name is cut there, and marked with '~', which is in no name. @palisade_refusal has it all.
CREATE PROCEDURE palisade_refuse(
    IN p_case VARCHAR(16), IN p_resource VARCHAR(1024) CHARACTER SET utf8mb4, IN p_presented BIGINT,
    IN p_fence BIGINT, IN p_table VARCHAR(64) CHARACTER SET utf8mb4
)
    SQL SECURITY INVOKER
BEGIN
    DECLARE v_facts VARCHAR(2048) CHARACTER SET utf8mb4 DEFAULT CONCAT(
        '","presented":', COALESCE(p_presented, 'null'), ',"fence":', COALESCE(p_fence, 'null'));
    DECLARE v_text VARCHAR(2048) CHARACTER SET utf8mb4 DEFAULT CONCAT('{"resource":"', p_resource, v_facts,
        IF(p_table IS NULL, '', CONCAT(',"table":', JSON_QUOTE(p_table))), '}');
    SET @palisade_refusal = v_text;
    IF CHAR_LENGTH(v_text) > 128 THEN
        SET v_text = CONCAT('{"resource":"', IF(CHAR_LENGTH(CONCAT(p_resource, v_facts)) <= 114, p_resource,
            CONCAT(LEFT(p_resource, 113 - CHAR_LENGTH(v_facts)), '~')), v_facts, '}');
    END IF;
    CASE p_case
        WHEN 'stale' THEN SIGNAL SQLSTATE 'ZF001' SET MYSQL_ERRNO = 51001, MESSAGE_TEXT = v_text;
        WHEN 'unsealed' THEN SIGNAL SQLSTATE 'ZF002' SET MYSQL_ERRNO = 51002, MESSAGE_TEXT = v_text;
        WHEN 'unguarded' THEN SIGNAL SQLSTATE 'ZF003' SET MYSQL_ERRNO = 51003, MESSAGE_TEXT = v_text;
        ELSE SIGNAL SQLSTATE 'ZF004' SET MYSQL_ERRNO = 51004, MESSAGE_TEXT = v_text;
    END CASE;
END
-- next
DROP PROCEDURE IF EXISTS palisade_validate
-- next
-- Raises unless the three are a grant. The token is a text: a number would be rounded to an integer first.
CREATE PROCEDURE palisade_validate(
    IN p_resource VARCHAR(1024) CHARACTER SET utf8mb4, IN p_token VARCHAR(64) CHARACTER SET utf8mb4,
    IN p_holder VARCHAR(64) CHARACTER SET utf8mb4
)
    SQL SECURITY INVOKER
BEGIN
    DECLARE v_path VARCHAR(1026) CHARACTER SET utf8mb4 DEFAULT CONCAT('/', p_resource, '/');
    IF p_resource IS NULL OR p_token IS NULL OR p_holder IS NULL
        -- Only ASCII has as many bytes as characters; beyond it, collations think letters equal.
        OR OCTET_LENGTH(p_resource) > 256 OR OCTET_LENGTH(p_resource) <> CHAR_LENGTH(p_resource)
        OR p_resource REGEXP '[^A-Za-z0-9._:/-]'
        OR v_path LIKE '%//%' OR v_path LIKE '%/./%' OR v_path LIKE '%/../%'
        OR OCTET_LENGTH(p_token) NOT BETWEEN 1 AND 16 OR p_token REGEXP '[^0-9]' OR p_token LIKE '0%'
        OR CAST(p_token AS UNSIGNED) > 9007199254740991
        OR OCTET_LENGTH(p_holder) <> 32 OR p_holder REGEXP '[^0-9a-f]'
        OR CAST(p_holder AS BINARY) <> CAST(LOWER(p_holder) AS BINARY)
    THEN
        SIGNAL SQLSTATE '22023' SET MYSQL_ERRNO = 51000,
            MESSAGE_TEXT = 'not a grant: resource, token or holder is out of bounds';
    END IF;
END
-- next
DROP PROCEDURE IF EXISTS palisade_enter
-- next
-- Raises unless the grant is admitted (ZF001, ZF002, ZF004); it stays so until the transaction ends, for the
-- fence is read under a lock that a seal waits for. The locking read sees what is committed last at any
-- isolation; a plain one would see the transaction's snapshot.
CREATE PROCEDURE palisade_enter(
    IN p_resource VARCHAR(1024) CHARACTER SET utf8mb4, IN p_token VARCHAR(64) CHARACTER SET utf8mb4,
    IN p_holder VARCHAR(64) CHARACTER SET utf8mb4
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
BEGIN
    DECLARE v_first, v_outside BOOLEAN DEFAULT FALSE;
    DECLARE v_token BIGINT;
    DECLARE v_holder VARBINARY(32);
    -- A savepoint lasts exactly as long as its transaction: neither session nor server has another mark
    -- of that kind. The first RELEASE fails in a transaction that has not entered before.
    BEGIN
        DECLARE CONTINUE HANDLER FOR 1305 SET v_first = TRUE;
        RELEASE SAVEPOINT palisade_guard;
    END;
    SAVEPOINT palisade_guard;
    BEGIN
        DECLARE CONTINUE HANDLER FOR 1305 SET v_outside = TRUE;
        RELEASE SAVEPOINT palisade_guard;
    END;
    IF v_outside THEN
        SIGNAL SQLSTATE '25000' SET MYSQL_ERRNO = 51000,
            MESSAGE_TEXT = 'palisade_enter outside of a transaction: START TRANSACTION first';
    END IF;
    -- Before anything is read without a lock: that makes the snapshot of the transaction.
    BEGIN
        DECLARE CONTINUE HANDLER FOR NOT FOUND BEGIN END;
        SELECT token, holder INTO v_token, v_holder FROM palisade_fence
            WHERE resource = CAST(p_resource AS BINARY) LOCK IN SHARE MODE;
    END;
    IF NOT COALESCE(CAST(p_token AS BINARY) = CAST(v_token AS BINARY)
        AND CAST(p_holder AS BINARY) = v_holder, FALSE) THEN
        CALL palisade_validate(p_resource, p_token, p_holder);
        CALL palisade_refuse(
            CASE WHEN v_token IS NULL OR CAST(p_token AS SIGNED) > v_token THEN 'unsealed'
                WHEN CAST(p_token AS SIGNED) < v_token THEN 'stale' ELSE 'collision' END,
            p_resource, p_token, v_token, NULL);
    END IF;
    IF v_first OR @palisade_stamp IS NULL THEN
        -- What an earlier transaction of this session has left behind, having committed without palisade_leave.
        CALL palisade_forget();
        SET @palisade_stamp = UUID_SHORT();
    END IF;
    INSERT INTO palisade_entry (stamp, resource, token, holder, session)
        VALUES (@palisade_stamp, CAST(p_resource AS BINARY), v_token, v_holder, CONNECTION_ID())
        ON DUPLICATE KEY UPDATE session = VALUES(session);
    SAVEPOINT palisade_guard;
END
-- next
DROP PROCEDURE IF EXISTS palisade_forget
-- next
-- Deletes this session's entries one by one: by range, the deletes of others would wait for the gap between.
CREATE PROCEDURE palisade_forget()
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
BEGIN
    DECLARE v_done BOOLEAN DEFAULT FALSE;
    DECLARE v_resource VARBINARY(256);
    DECLARE entries CURSOR FOR SELECT resource FROM palisade_entry WHERE stamp = @palisade_stamp;
    DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_done = TRUE;
    IF @palisade_stamp IS NOT NULL THEN
        OPEN entries;
        forget: LOOP
            FETCH entries INTO v_resource;
            IF v_done THEN
                LEAVE forget;
            END IF;
            DELETE FROM palisade_entry WHERE stamp = @palisade_stamp AND resource = v_resource;
        END LOOP;
        CLOSE entries;
        SET @palisade_stamp = NULL;
    END IF;
END
-- next
DROP PROCEDURE IF EXISTS palisade_leave
-- next
-- The last statement before COMMIT. Raises if the transaction that has entered is over: 40000 if it was rolled
-- back, as after a deadlock; ZF003 if it was committed, by hand or by DDL.
CREATE PROCEDURE palisade_leave()
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
BEGIN
    DECLARE v_over BOOLEAN DEFAULT FALSE;
    DECLARE v_entries INT;
    SELECT COUNT(*) INTO v_entries FROM palisade_entry WHERE stamp = @palisade_stamp;
    BEGIN
        DECLARE CONTINUE HANDLER FOR 1305 SET v_over = TRUE;
        RELEASE SAVEPOINT palisade_guard;
    END;
    IF v_over THEN
        -- What came after it was on its own. Not even by autocommit = 0 is it to go with what is deleted here.
        ROLLBACK AND NO CHAIN NO RELEASE;
    END IF;
    CALL palisade_forget();
    IF v_over THEN
        COMMIT AND NO CHAIN NO RELEASE;
    END IF;
    IF v_entries = 0 THEN
        SIGNAL SQLSTATE '40000' SET MYSQL_ERRNO = 51005,
            MESSAGE_TEXT = 'the guarded transaction was rolled back before';
    ELSEIF v_over THEN
        CALL palisade_refuse('unguarded', '', NULL, NULL, NULL);
    END IF;
END
-- next
DROP PROCEDURE IF EXISTS palisade_seal
-- next
-- Raises the fence in one statement, which commits on its own. It waits for the transactions that have
-- entered, at most innodb_lock_wait_timeout; the trigger below decides. The microsecond makes the same grant's
-- next seal a change, so that it reaches the disk again.
CREATE PROCEDURE palisade_seal(
    IN p_resource VARCHAR(1024) CHARACTER SET utf8mb4, IN p_token VARCHAR(64) CHARACTER SET utf8mb4,
    IN p_holder VARCHAR(64) CHARACTER SET utf8mb4
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
BEGIN
    DECLARE v_outside BOOLEAN DEFAULT FALSE;
    DECLARE v_now BIGINT DEFAULT FLOOR(UNIX_TIMESTAMP(NOW(6)) * 1000000);
    CALL palisade_validate(p_resource, p_token, p_holder);
    SAVEPOINT palisade_seal;
    BEGIN
        DECLARE CONTINUE HANDLER FOR 1305 SET v_outside = TRUE;
        RELEASE SAVEPOINT palisade_seal;
    END;
    IF NOT v_outside THEN
        SIGNAL SQLSTATE '25001' SET MYSQL_ERRNO = 51000,
            MESSAGE_TEXT = 'palisade_seal in a transaction: it commits on its own, before the first read';
    END IF;
    INSERT INTO palisade_fence (resource, token, holder, sealed_at)
        VALUES (CAST(p_resource AS BINARY), CAST(p_token AS SIGNED), CAST(p_holder AS BINARY), v_now)
        ON DUPLICATE KEY UPDATE sealed_at = GREATEST(sealed_at + 1, v_now),
            token = CAST(p_token AS SIGNED), holder = CAST(p_holder AS BINARY);
    CALL palisade_sweep(p_resource, p_token);
END
-- next
DROP PROCEDURE IF EXISTS palisade_sweep
-- next
-- Deletes what sessions have left behind for good: entries below the fence, which count for nothing. They were
-- committed, for whoever holds one that is not would have kept the seal waiting.
CREATE PROCEDURE palisade_sweep(
    IN p_resource VARCHAR(1024) CHARACTER SET utf8mb4, IN p_token VARCHAR(64) CHARACTER SET utf8mb4
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
BEGIN
    DECLARE v_done BOOLEAN DEFAULT FALSE;
    DECLARE v_stamp BIGINT UNSIGNED;
    DECLARE entries CURSOR FOR SELECT stamp FROM palisade_entry
        WHERE resource = CAST(p_resource AS BINARY) AND token < CAST(p_token AS SIGNED);
    DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_done = TRUE;
    OPEN entries;
    sweep: LOOP
        FETCH entries INTO v_stamp;
        IF v_done THEN
            LEAVE sweep;
        END IF;
        DELETE FROM palisade_entry WHERE stamp = v_stamp AND resource = CAST(p_resource AS BINARY);
    END LOOP;
    CLOSE entries;
END
-- next
DROP TRIGGER IF EXISTS palisade_fence_update
-- next
CREATE TRIGGER palisade_fence_update BEFORE UPDATE ON palisade_fence FOR EACH ROW
BEGIN
    IF NEW.resource <> OLD.resource THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 51006, MESSAGE_TEXT = 'a fence is never renamed';
    ELSEIF NEW.token < OLD.token THEN
        CALL palisade_refuse('stale', OLD.resource, NEW.token, OLD.token, NULL);
    ELSEIF NEW.token = OLD.token AND NEW.holder <> OLD.holder THEN
        CALL palisade_refuse('collision', OLD.resource, NEW.token, OLD.token, NULL);
    END IF;
END
-- next
DROP TRIGGER IF EXISTS palisade_fence_delete
-- next
CREATE TRIGGER palisade_fence_delete BEFORE DELETE ON palisade_fence FOR EACH ROW
    SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 51006,
        MESSAGE_TEXT = 'a fence is never deleted: without it every stale token is a first one'
-- next
DROP PROCEDURE IF EXISTS palisade_enforce
-- next
-- What the triggers of a protected table call where this session has no good entry: says why.
CREATE PROCEDURE palisade_enforce(IN p_resource VARCHAR(256), IN p_table VARCHAR(64) CHARACTER SET utf8mb4)
    SQL SECURITY INVOKER
BEGIN
    DECLARE v_presented, v_fence BIGINT;
    DECLARE CONTINUE HANDLER FOR NOT FOUND BEGIN END;
    SELECT token INTO v_presented FROM palisade_entry
        WHERE stamp = @palisade_stamp AND resource = CAST(p_resource AS BINARY) LOCK IN SHARE MODE;
    SELECT token INTO v_fence FROM palisade_fence
        WHERE resource = CAST(p_resource AS BINARY) LOCK IN SHARE MODE;
    CALL palisade_refuse(
        CASE WHEN v_presented IS NULL THEN 'unguarded' WHEN v_presented < v_fence THEN 'stale'
            WHEN v_presented = v_fence THEN 'collision' ELSE 'unsealed' END,
        p_resource, v_presented, v_fence, p_table);
END
-- next
DROP PROCEDURE IF EXISTS palisade_status
-- next
CREATE PROCEDURE palisade_status(IN p_resource VARCHAR(1024) CHARACTER SET utf8mb4)
    SQL SECURITY DEFINER
    READS SQL DATA
    SELECT token, CAST(holder AS CHAR CHARACTER SET utf8mb4) AS holder, sealed_at FROM palisade_fence
        WHERE resource = CAST(p_resource AS BINARY)
-- next
DROP PROCEDURE IF EXISTS palisade_blockers
-- next
-- The sessions that a seal of the resource waits for: those with an entry that is not committed, which only
-- a dirty read shows. Not in a transaction.
CREATE PROCEDURE palisade_blockers(IN p_resource VARCHAR(1024) CHARACTER SET utf8mb4)
    SQL SECURITY DEFINER
    READS SQL DATA
BEGIN
    DECLARE v_left_behind TEXT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SELECT GROUP_CONCAT(stamp) INTO v_left_behind FROM palisade_entry
        WHERE resource = CAST(p_resource AS BINARY);
    SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED;
    SELECT DISTINCT CAST(e.session AS SIGNED) AS id, CAST(p.user AS CHAR CHARACTER SET utf8mb4) AS application,
        CAST(p.command AS CHAR CHARACTER SET utf8mb4) AS state
        FROM palisade_entry AS e LEFT JOIN information_schema.processlist AS p ON p.id = e.session
        WHERE e.resource = CAST(p_resource AS BINARY) AND COALESCE(FIND_IN_SET(e.stamp, v_left_behind), 0) = 0
        ORDER BY 1;
END
