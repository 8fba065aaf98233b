-- What the scripts share. KEYS: meta, state, log, occurrences, removals.
-- A number in Lua is a double; `%.0f` keeps it from being written as 1e+15.
local function text(number) return string.format('%.0f', number) end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local KEPT_MAX, KEPT_MS = 1024, 900000

-- A log begins: nothing of an earlier one may be left.
local function begin(epoch, run)
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'seq', '0', 'floor', '0', 'run', run, 'at', '0',
    'keys', '0', 'bytes', '0', 'log', '0')
end

-- Drops what is too old or too many from a stream `<ms>-<seq>`, and raises the floor to what went.
local function trim(stream, at, floor)
  local cut = text(math.max(at - KEPT_MS, 0)) .. '-0'
  local old = redis.call('XREVRANGE', stream, cut, '-', 'COUNT', 1)
  if old[1] then
    floor = math.max(floor, tonumber(string.match(old[1][1], '-(%d+)$')))
    redis.call('XTRIM', stream, 'MINID', cut)
  end
  local over = redis.call('XLEN', stream) - KEPT_MAX
  if over > 0 then
    local gone = redis.call('XRANGE', stream, '-', '+', 'COUNT', over)
    floor = math.max(floor, tonumber(string.match(gone[over][1], '-(%d+)$')))
    redis.call('XTRIM', stream, 'MAXLEN', KEPT_MAX)
  end
  return floor
end
