-- Keeps a lease that is still ours, or with a time of 0 gives it up.
-- KEYS: lease.
local owner, ms = ARGV[1], tonumber(ARGV[2])
if redis.call('GET', KEYS[1]) ~= owner then return 0 end
if ms > 0 then redis.call('PEXPIRE', KEYS[1], ms) else redis.call('DEL', KEYS[1]) end
return 1
