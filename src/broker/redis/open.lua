-- Joins the log's epoch or starts the next, and says where the log stands, at one instant.
-- RUN as in the append script.
-- KEYS  log, meta, seqs, marks
-- ARGV  seen_epoch, seen_offset, grace_ms, all_origins, kept_s, origin...
local meta = redis.call('HMGET', KEYS[2], 'run', 'epoch', 'offset', 'sealed', 'open_at')
-- Numbers that are none are somebody else's doing: as if nothing were there.
local epoch, offset = tonumber(meta[2] or '') or 0, tonumber(meta[3] or '') or 0
local seen_epoch, seen_offset = tonumber(ARGV[1]), tonumber(ARGV[2])
local sealed, open_at = meta[4] == '1', tonumber(meta[5] or '') or 0
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local has_lost = epoch < seen_epoch or (epoch == seen_epoch and offset < seen_offset)
if meta[1] ~= RUN or has_lost then
    local top = 0
    if redis.call('EXISTS', KEYS[1]) == 1 then
        local info = redis.call('XINFO', 'STREAM', KEYS[1])
        for i = 1, #info, 2 do
            if info[i] == 'last-generated-id' then top = tonumber(string.match(info[i + 1], '^%d+')) end
        end
    end
    local before = math.max(epoch, seen_epoch, top)
    epoch, offset, sealed = math.max(now_ms, before + 1), 0, false
    open_at = before > 0 and now_ms + tonumber(ARGV[3]) or 0
    -- Two histories, of which one is over: let every publisher bring all it has.
    if has_lost then redis.call('DEL', KEYS[3]) end
    redis.call('HSET', KEYS[2], 'run', RUN, 'epoch', string.format('%.0f', epoch), 'offset', '0', 'sealed', '0',
        'open_at', string.format('%.0f', open_at))
end

local origins = {}
if ARGV[4] == '1' then
    -- An origin of which the log still holds something is never forgotten.
    local kept = tonumber(time[1]) - tonumber(ARGV[5])
    local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
    local first_epoch, first_offset = string.match(oldest and oldest[1] or '', '^(%d+)-(%d+)$')
    first_epoch, first_offset = tonumber(first_epoch or '') or math.huge, tonumber(first_offset or '') or math.huge
    local all = redis.call('HGETALL', KEYS[3])
    for i = 1, #all, 2 do
        local _, at_epoch, at_offset, unix_s = string.match(all[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
        at_epoch, at_offset, unix_s = tonumber(at_epoch or '') or 0, tonumber(at_offset or '') or 0, tonumber(unix_s or '') or 0
        local is_gone = at_epoch < first_epoch or (at_epoch == first_epoch and at_offset < first_offset)
        if unix_s < kept and is_gone then
            redis.call('HDEL', KEYS[3], all[i])
        else
            origins[#origins + 1] = all[i]
            origins[#origins + 1] = all[i + 1]
        end
    end
else
    for i = 6, #ARGV do
        local held = redis.call('HGET', KEYS[3], ARGV[i])
        if held then
            origins[#origins + 1] = ARGV[i]
            origins[#origins + 1] = held
        end
    end
end
local grace_ms = (not sealed and open_at > now_ms) and open_at - now_ms or 0
return {string.format('%.0f', epoch), string.format('%.0f', offset), sealed and 1 or 0, grace_ms, origins}
