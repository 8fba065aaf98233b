-- Proves that the server stores and delivers. The message has the head of the log at this very moment, so
-- that whoever gets it knows whether it has everything.
-- KEYS: probe, meta.
local origin, nonce, say, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
redis.call('SET', KEYS[1], nonce, 'PX', 10000)
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'seq', 'run')
redis.call(say, channel, 'P ' .. origin .. ' ' .. nonce .. ' ' .. (meta[1] or '-') .. ' ' .. (meta[2] or '0'))
return { redis.call('TIME'), meta[3] or '' }
