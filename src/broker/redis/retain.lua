-- Stores tags' last values, unless a later term has been seen, and lets go of those published longest ago when there
-- are too many.
-- KEYS  last, last_at, meta
-- ARGV  term, values_max, bytes_max, overhead, then name, at_unix_ms and value of each
local seen = redis.call('HMGET', KEYS[3], 'last_term', 'last_bytes')
-- What is no number of ours is somebody else's doing: as if nothing were there.
local term, bytes = tonumber(seen[1] or '') or 0, tonumber(seen[2] or '') or 0
if tonumber(ARGV[1]) < term and term < 2 ^ 53 then return {string.format('%.0f', term)} end
local held = redis.call('HLEN', KEYS[1])
if held == 0 or held ~= redis.call('ZCARD', KEYS[2]) then
    -- One without the other is of no use: somebody else's doing, or a key that was evicted.
    redis.call('UNLINK', KEYS[1], KEYS[2])
    held, bytes = 0, 0
end
local was_empty, overhead = held == 0, tonumber(ARGV[4])

for i = 5, #ARGV, 3 do
    local name, value = ARGV[i], ARGV[i + 2]
    local before = redis.call('HSTRLEN', KEYS[1], name)
    if redis.call('HSET', KEYS[1], name, value) == 1 then
        held, bytes = held + 1, bytes + 2 * #name + #value + overhead
    else
        bytes = bytes + #value - before
    end
    redis.call('ZADD', KEYS[2], ARGV[i + 1], name)
end

-- Bounds that were lowered are reached over some calls: none may take long.
local dropped = 0
while (held > tonumber(ARGV[2]) or bytes > tonumber(ARGV[3])) and dropped < #ARGV do
    local oldest = redis.call('ZPOPMIN', KEYS[2])[1]
    if not oldest then break end
    bytes = bytes - 2 * #oldest - redis.call('HSTRLEN', KEYS[1], oldest) - overhead
    held, dropped = held - redis.call('HDEL', KEYS[1], oldest), dropped + 1
end
redis.call('HSET', KEYS[3], 'last_term', ARGV[1], 'last_bytes', string.format('%.0f', bytes))
return {was_empty and 1 or 0, dropped}
