-- Gives a node's lease up, if it is this boot's.
-- KEYS  lease
-- ARGV  boot
local held = redis.call('GET', KEYS[1])
local mine = ARGV[1] .. '|'
if held and string.sub(held, 1, #mine) == mine then return redis.call('DEL', KEYS[1]) end
return 0
