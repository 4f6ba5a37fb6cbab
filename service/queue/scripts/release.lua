-- Give a running job back for any other worker to take at once → 'done' | 'stale'. The attempt is given back too.
-- KEYS 7 the hand-over stream. ARGV 3 epoch, 4 entry, 5 priority, 6 checkpoint or ''.
local epoch, status, cancel = unpack(redis.call('HMGET', JOB, 'epoch', 'status', 'cancel'))
-- Not running but still our epoch: this call was carried out and its reply was lost.
if epoch == ARGV[3] and (status == 'queued' or status == 'cancelled') then
  return 'done'
end
if not holds(ARGV[3]) then
  return 'stale'
end

if cancel then
  finish('cancelled', '')
  remove(ARGV[4])
  return 'done'
end
local entry = redis.call('XADD', KEYS[7], '*', 'job', ID, 'priority', ARGV[5])
redis.call('HSET', JOB, 'status', 'queued', 'stream', KEYS[7], 'entry', entry)
redis.call('HINCRBY', JOB, 'attempts', -1)
if ARGV[6] ~= '' then
  redis.call('HSET', JOB, 'checkpoint', ARGV[6])
end
remove(ARGV[4])
changed()
return 'done'
