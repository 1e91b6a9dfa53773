#!lua name=palisade_guard_1
-- Version 1. Names carry the version: libraries of two versions may be in use at once. A published one never
-- changes.
--
-- Every function is one atomic step. KEYS[1] is the fence, palisade:{RESOURCE}:fence; all keys have the hash tag
-- {RESOURCE}, so that a cluster keeps them together. Replies are arrays whose first word says what they are.

local MAX_TOKEN = 9007199254740991
-- unpack() has a stack of about 8000.
local MAX_ARGUMENTS = 4096

-- Write commands that work on the one key which is their first argument, and do not block.
local ALLOWED = {
    APPEND = true, BITFIELD = true, DECR = true, DECRBY = true, DEL = true, EXPIRE = true, EXPIREAT = true,
    GETDEL = true, GETEX = true, GETSET = true, HDEL = true, HINCRBY = true, HINCRBYFLOAT = true,
    HMSET = true, HSET = true, HSETNX = true, INCR = true, INCRBY = true, INCRBYFLOAT = true, LINSERT = true,
    LPOP = true, LPUSH = true, LPUSHX = true, LREM = true, LSET = true, LTRIM = true, PERSIST = true,
    PEXPIRE = true, PEXPIREAT = true, PFADD = true, PSETEX = true, RPOP = true, RPUSH = true, RPUSHX = true,
    SADD = true, SET = true, SETBIT = true, SETEX = true, SETNX = true, SETRANGE = true, SPOP = true,
    SREM = true, XADD = true, XDEL = true, XTRIM = true, ZADD = true, ZINCRBY = true, ZPOPMAX = true,
    ZPOPMIN = true, ZREM = true, ZREMRANGEBYLEX = true, ZREMRANGEBYRANK = true, ZREMRANGEBYSCORE = true,
}

-- DEL takes several keys; here it takes one.
local ONE_KEY = { DEL = true }

local function is_token(text)
    return type(text) == 'string' and #text <= 16 and string.find(text, '^[1-9]%d*$') ~= nil
        and tonumber(text) <= MAX_TOKEN
end

local function is_holder(text)
    return type(text) == 'string' and #text == 32 and string.find(text, '[^0-9a-f]') == nil
end

local function is_resource(text)
    if type(text) ~= 'string' or #text < 1 or #text > 256 or string.find(text, '[^A-Za-z0-9._:/-]') then
        return false
    end
    for segment in string.gmatch(text .. '/', '([^/]*)/') do
        if segment == '' or segment == '.' or segment == '..' then
            return false
        end
    end
    return true
end

local function fence_key(resource)
    return 'palisade:{' .. resource .. '}:fence'
end

-- The fence as token and holder, nothing if there is none; `false` if what is there is no fence.
local function read(key)
    local kind = redis.call('TYPE', key).ok
    if kind == 'none' then
        return nil
    elseif kind ~= 'hash' then
        return false
    end
    local fence = redis.call('HMGET', key, 'token', 'holder')
    if not (is_token(fence[1]) and is_holder(fence[2])) then
        return false
    end
    return fence[1], fence[2]
end

-- What a grant meets: 'ok', 'stale', 'unsealed' or 'collision', and the fence's token.
local function decide(token, holder, fence, fence_holder)
    if fence == nil then
        return 'unsealed', ''
    elseif tonumber(token) < tonumber(fence) then
        return 'stale', fence
    elseif tonumber(token) > tonumber(fence) then
        return 'unsealed', fence
    elseif holder ~= fence_holder then
        return 'collision', fence
    end
    return 'ok', fence
end

local function is_grant(keys, args)
    return is_resource(args[1]) and is_token(args[2]) and is_holder(args[3])
        and keys[1] == fence_key(args[1])
end

-- ARGV: resource, token, holder.
local function seal(keys, args)
    if #keys ~= 1 or #args ~= 3 or not is_grant(keys, args) then
        return { 'invalid', 'grant' }
    end
    local fence, fence_holder = read(keys[1])
    if fence == false then
        return { 'corrupt' }
    end
    local outcome, at = decide(args[2], args[3], fence, fence_holder)
    if outcome == 'stale' or outcome == 'collision' then
        return { outcome, at }
    end
    local now = redis.call('TIME')
    redis.call('HSET', keys[1], 'token', args[2], 'holder', args[3],
        'sealed_at', now[1] .. string.format('%06d', tonumber(now[2])))
    -- A fence has no end.
    redis.call('PERSIST', keys[1])
    return { 'ok', args[2] }
end

-- The commands of ARGV from `at` on, each as its number of words and its words; nothing if they are not well
-- formed, and why.
local function commands(keys, args, at)
    local declared, list = {}, {}
    for index = 2, #keys do
        declared[keys[index]] = true
    end
    local tag = '{' .. args[1] .. '}'
    while at <= #args do
        local count = string.find(args[at], '^%d%d?%d?%d?$') and tonumber(args[at]) or 0
        if count < 2 or count > MAX_ARGUMENTS or at + count > #args then
            return nil, 'arguments'
        end
        local command = { string.upper(args[at + 1]) }
        for index = 2, count do
            command[index] = args[at + index]
        end
        local name, key = command[1], command[2]
        if not ALLOWED[name] or (ONE_KEY[name] and count > 2) then
            return nil, 'command'
        end
        -- The first tag is the one that counts, and the fence is no data.
        if not declared[key] or string.match(key, '{([^}]*)}') ~= args[1]
            or string.find(key, tag, 1, true) ~= string.find(key, '{', 1, true) or key == keys[1] then
            return nil, 'key'
        end
        list[#list + 1] = command
        at = at + count + 1
    end
    return list
end

-- ARGV: resource, token, holder, and commands. Nothing is run unless the grant is admitted and every command
-- is well formed. A command that fails for what its key holds stops the rest, and those before it stay.
local function write(keys, args)
    if not is_grant(keys, args) then
        return { 'invalid', 'grant' }
    end
    local fence, fence_holder = read(keys[1])
    if fence == false then
        return { 'corrupt' }
    end
    local outcome, at = decide(args[2], args[3], fence, fence_holder)
    if outcome ~= 'ok' then
        return { outcome, at }
    end
    local list, why = commands(keys, args, 4)
    if not list then
        return { 'invalid', why }
    end
    redis.call('PERSIST', keys[1])
    local replies = { 'ok' }
    for index, command in ipairs(list) do
        local reply = redis.pcall(unpack(command))
        if type(reply) == 'table' and reply.err then
            return { 'failed', tostring(index - 1), reply.err }
        end
        -- A nil would end the array.
        replies[index + 1] = { reply }
    end
    return replies
end

local function status(keys, args)
    if #keys ~= 1 or #args ~= 1 or not is_resource(args[1]) or keys[1] ~= fence_key(args[1]) then
        return { 'invalid', 'grant' }
    end
    local fence, fence_holder = read(keys[1])
    if fence == false then
        return { 'corrupt' }
    elseif fence == nil then
        return { 'none' }
    end
    return { 'fence', fence, fence_holder, redis.call('HGET', keys[1], 'sealed_at') or '0' }
end

redis.register_function('palisade_seal_1', seal)
redis.register_function('palisade_write_1', write)
redis.register_function { function_name = 'palisade_status_1', callback = status, flags = { 'no-writes' } }
