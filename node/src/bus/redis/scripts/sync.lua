-- What follows a known place, if all of it is still there one by one; otherwise everything that is left.
-- With a channel, only the former, and a mark is said there.
-- KEYS: meta, state, log, occurrences, removals.
local epoch_known, head, fresh, run = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local say, channel, mark = ARGV[5], ARGV[6], ARGV[7]

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'floor', 'run', 'at')
if not meta[1] then
  begin(fresh, run)
  meta = { fresh, '0', '0', run, '0' }
end
local epoch, seq, floor = meta[1], tonumber(meta[2]), tonumber(meta[3])
-- A quiet log is trimmed by nobody else. Its times may be ahead of a clock that was set back.
local at = math.max(now_ms(), tonumber(meta[5]))
floor = trim(KEYS[5], at, trim(KEYS[4], at, floor))
redis.call('HSET', KEYS[1], 'floor', text(floor))

if say then redis.call(say, channel, 'M ' .. mark) end

local same = ''
if epoch_known == epoch and head <= seq then
  local place = text(head) .. '-0'
  local found = redis.call('XRANGE', KEYS[3], place, place)
  if found[1] then same = found[1][2][2] end
  if seq - head <= redis.call('XLEN', KEYS[3]) then
    local rest = redis.call('XRANGE', KEYS[3], '(' .. place, '+')
    return { epoch, text(seq), text(floor), meta[4], same, 'rest', rest }
  end
end
if say then return { epoch, text(seq), text(floor), meta[4], same, 'far' } end
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
return {
  epoch, text(seq), text(floor), meta[4], same, 'all',
  redis.call('HVALS', KEYS[2]),
  redis.call('XRANGE', KEYS[4], '-', '+'),
  redis.call('XRANGE', KEYS[5], '-', '+'),
  last,
}
