-- Says that the log goes on at this server, in the epoch it had or, when something of it is lost, in another;
-- only for who has seen it as it is.
-- KEYS: meta, state, log, occurrences, removals.
local epoch_seen, run_seen, run, epoch, say, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'run')
if meta[1] ~= epoch_seen or meta[2] ~= run_seen then return 0 end
redis.call('HSET', KEYS[1], 'run', run, 'epoch', epoch)
if epoch ~= epoch_seen then redis.call(say, channel, 'R ' .. epoch) end
return 1
