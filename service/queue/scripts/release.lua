-- Give a running job back for any other worker to take at once → 'done' | 'stale'. The attempt is given back too,
-- unless the job is to ``blame`` (1): it was in the call that Triton did not survive.
-- ``checkpoint`` is '' where there is none.
local present, status, cancel = unpack(redis.call('HMGET', JOB, 'epoch', 'status', 'cancel'))
-- Not running but still our epoch: this call was carried out and its reply was lost.
if present == epoch and (status == 'queued' or status == 'cancelled') then
  return 'done'
end
if not holds(epoch) then
  return 'stale'
end

if cancel then
  finish('cancelled')
  remove(entry)
  return 'done'
end
local place = redis.call('XADD', HANDOVER, '*', 'job', id, 'priority', priority, 'rows', rows)
redis.call('HSET', JOB, 'status', 'queued', 'stream', HANDOVER, 'entry', place)
if blame == '1' then
  redis.call('HSET', JOB, 'blamed', 1)
else
  redis.call('HINCRBY', JOB, 'attempts', -1)
end
if checkpoint ~= '' then
  redis.call('HSET', JOB, 'checkpoint', checkpoint)
end
redis.call('XADD', BELL, 'MAXLEN', 1, '*', 'job', id)
remove(entry)
changed()
return 'done'
