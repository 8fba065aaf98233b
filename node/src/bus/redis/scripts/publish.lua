-- Stores one publication and says it to all nodes, or does neither. What it answers begins with the name
-- that the call was given, so that an answer is never taken for that of another call.
-- KEYS: meta, state, log, occurrences, removals, repeat.
local call, run, deadline, fresh = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local say, channel = ARGV[5], ARGV[6]
local data, window = ARGV[7], ARGV[8]
local kind, field, size, expect, record = ARGV[9], ARGV[10], tonumber(ARGV[11]), ARGV[12], ARGV[13]
local KEYS_MAX, BYTES_MAX = tonumber(ARGV[14]), tonumber(ARGV[15])
local LOG_MAX, LOG_BYTES_MAX = 2048, 8388608

local now = now_ms()
-- A server that stood still serves what nobody waits for any more.
if now > deadline then return { call, 'expired' } end

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'floor', 'run', 'at', 'keys', 'bytes', 'log')
if not meta[1] then
  begin(fresh, run)
  meta = { fresh, '0', '0', run, '0', '0', '0', '0' }
end
local epoch, seq, floor = meta[1], tonumber(meta[2]), tonumber(meta[3])
local at, keys, bytes, logged = tonumber(meta[5]), tonumber(meta[6]), tonumber(meta[7]), tonumber(meta[8])
-- Another server wrote this last: first somebody has to find out whether it is all there.
if meta[4] ~= run then return { call, 'unsettled' } end

local known = redis.call('GET', KEYS[6])
if known then
  local place, same, by = string.match(known, '^(%d+) (%S+) (.*)$')
  if same ~= data then return { call, 'conflict', place } end
  if by == call then return { call, 'stored', epoch, place } end
  return { call, 'repeat', epoch, place }
end

local actual, replaced, had = '0', 0, false
if field ~= '' then
  local value = redis.call('HGET', KEYS[2], field)
  if value then
    local place, old = string.match(value, '^(%d+) (%d+) ')
    actual, replaced, had = place, tonumber(old), true
  end
end
if expect ~= 'any' and expect ~= actual then return { call, 'changed', actual } end
if kind == 'v' then
  local more_keys, more_bytes = keys + (had and 0 or 1), bytes - replaced + size
  if more_keys > KEYS_MAX or more_bytes > BYTES_MAX then return { call, 'full', text(keys), text(bytes) } end
  keys, bytes = more_keys, more_bytes
elseif had then
  keys, bytes = keys - 1, bytes - replaced
end

seq = seq + 1
at = math.max(at, now)
local place, moment = text(seq), text(at) .. '-' .. text(seq)
redis.call('XADD', KEYS[3], place .. '-0', 'r', record)
logged = logged + #record
while redis.call('XLEN', KEYS[3]) > 1 and (redis.call('XLEN', KEYS[3]) > LOG_MAX or logged > LOG_BYTES_MAX) do
  local oldest = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
  logged = logged - #oldest[2][2]
  redis.call('XDEL', KEYS[3], oldest[1])
end
if kind == 'v' then
  redis.call('HSET', KEYS[2], field, place .. ' ' .. text(size) .. ' ' .. record)
elseif kind == 'd' then
  redis.call('HDEL', KEYS[2], field)
  redis.call('XADD', KEYS[5], moment, 'r', record)
  floor = trim(KEYS[5], at, floor)
else
  redis.call('XADD', KEYS[4], moment, 'r', record)
  floor = trim(KEYS[4], at, floor)
end
redis.call('HSET', KEYS[1], 'seq', place, 'floor', text(floor), 'at', text(at), 'keys', text(keys),
  'bytes', text(bytes), 'log', text(logged))
redis.call('SET', KEYS[6], place .. ' ' .. data .. ' ' .. call, 'PX', window)
redis.call(say, channel, 'S ' .. epoch .. ' ' .. place .. ' ' .. record)
return { call, 'stored', epoch, place }
