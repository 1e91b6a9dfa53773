-- Adds one message to a stream, once, for a relay that was not replaced.
-- KEYS: the stream; the tokens of its relays; the ids of its last messages.
-- ARGV: the relay's resource, token and holder; the message's id; how many ids to keep; the most entries of
-- the stream (0: all); then fields and values.
local token, holder = ARGV[2], ARGV[3]
local sealed = redis.call('HGET', KEYS[2], ARGV[1])
if sealed then
    local fence, by = string.match(sealed, '^(%d+) (%x+)$')
    -- Below 2^53, so that Lua's numbers are exact.
    if tonumber(token) < tonumber(fence) then return { 'stale', fence } end
    if fence == token and by ~= holder then return { 'collision', fence } end
end
if sealed ~= token .. ' ' .. holder then
    redis.call('HSET', KEYS[2], ARGV[1], token .. ' ' .. holder)
end
if redis.call('ZSCORE', KEYS[3], ARGV[4]) then return { 'seen', '' } end
local add = { 'XADD', KEYS[1] }
if ARGV[6] ~= '0' then
    add[3], add[4], add[5] = 'MAXLEN', '~', ARGV[6]
end
add[#add + 1] = '*'
for i = 7, #ARGV do add[#add + 1] = ARGV[i] end
local id = redis.call(unpack(add))
-- In the order in which they came; the score counts, whatever the clock does.
local last = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2] or '0'
redis.call('ZADD', KEYS[3], string.format('%.0f', tonumber(last) + 1), ARGV[4])
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -(tonumber(ARGV[5]) + 1))
return { 'added', id }
