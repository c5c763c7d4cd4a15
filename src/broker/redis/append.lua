-- Appends one batch, or says why not. Loaded with RUN, the run_id of the server for which it was loaded: another
-- server does not know this script, and that is the fence. PUBLISH is the command for the live channel, which is no key:
-- a slot that is on its way to another server would seem to lack it.
-- KEYS  log, meta, seqs, marks
-- ARGV  epoch, origin, prev, last, is_new, seen_offset, mark_bytes, log_bytes, entries_max, touch, batch, live channel
local meta = redis.call('HMGET', KEYS[2], 'run', 'epoch', 'offset', 'sealed', 'open_at', 'bytes', 'marked')
if meta[1] ~= RUN or meta[2] ~= ARGV[1] then return {'fenced'} end
local offset = tonumber(meta[3] or '')
if not offset or offset < tonumber(ARGV[6]) then return {'fenced'} end

local held = redis.call('HGET', KEYS[3], ARGV[2])
local last = held and tonumber(string.match(held, '^%d+')) or 0
local prev, new_last = tonumber(ARGV[3]), tonumber(ARGV[4])
if last ~= prev then
    if new_last == prev or last < new_last then return {'gap'} end
    -- A write, so that a WAIT behind it waits for something.
    if ARGV[10] == '1' then redis.call('HSET', KEYS[3], ARGV[2], held) end
    return {'have', held}
end

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local sealed, is_new = meta[4] == '1', ARGV[5] == '1'
local grace_ms = (tonumber(meta[5] or '') or 0) - now_ms
if is_new and not sealed and grace_ms > 0 then return {'wait', grace_ms} end

local kind = is_new and 'n' or (sealed and 'l' or 'r')
local at = string.format('%.0f', offset + 1)
local id = ARGV[1] .. '-' .. at
local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[9], id, kind, ARGV[11])
if type(added) == 'table' and added.err then
    if string.find(added.err, 'equal or smaller', 1, true) then
        -- Somebody else has written to the stream: the next open starts an epoch behind that.
        redis.call('HDEL', KEYS[2], 'run')
        return {'fenced'}
    end
    return added
end

local bytes = (tonumber(meta[6] or '') or 0) + #ARGV[11] + 64
redis.call('HSET', KEYS[2], 'offset', at, 'bytes', string.format('%.0f', bytes), 'sealed', (sealed or is_new) and '1' or '0')
if new_last ~= prev then
    redis.call('HSET', KEYS[3], ARGV[2], ARGV[4] .. ' ' .. ARGV[1] .. ' ' .. at .. ' ' .. time[1])
end

-- A mark every mark_bytes: an entry and the bytes up to it. What is before the newest mark that still leaves log_bytes
-- behind it goes; whole nodes of the stream only, which is cheap.
if bytes - (tonumber(meta[7] or '') or 0) >= tonumber(ARGV[7]) then
    local text = string.format('%.0f', bytes)
    redis.call('HSET', KEYS[2], 'marked', text)
    redis.call('RPUSH', KEYS[4], id .. ' ' .. text)
    local cut
    for _ = 1, 64 do
        local first, upto = string.match(redis.call('LINDEX', KEYS[4], 0), '^(%S+) (%d+)')
        if not first or (bytes - tonumber(upto)) > tonumber(ARGV[8]) then
            redis.call('LPOP', KEYS[4])
            cut = first or cut
        else
            break
        end
    end
    if cut then redis.call('XTRIM', KEYS[1], 'MINID', '~', cut) end
end

-- Nobody may be listening, or may be allowed to: the batch is in the log all the same.
redis.pcall(PUBLISH, ARGV[12], struct.pack('>Bc1I8I8', 1, kind, tonumber(ARGV[1]), offset + 1) .. ARGV[11])
return {'stored', at, kind}
