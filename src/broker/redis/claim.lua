-- Takes or renews a node's lease for one boot.
-- KEYS  lease
-- ARGV  boot, text, ttl_ms
local held = redis.call('GET', KEYS[1])
local mine = ARGV[1] .. '|'
if held and string.sub(held, 1, #mine) ~= mine then return {0, held, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], mine .. ARGV[2], 'PX', ARGV[3])
return {1}
