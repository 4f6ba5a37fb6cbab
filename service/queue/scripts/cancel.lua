-- Cancel a job → its status, or nil when it is unknown. A queued one ends here and leaves its entry as a tombstone;
-- a running one is marked, and its worker hears of it at its next renewal, progress or checkpoint.
local status = redis.call('HGET', JOB, 'status')
if status == 'queued' then
  finish('cancelled')
  return 'cancelled'
end
if status == 'running' then
  redis.call('HSET', JOB, 'cancel', 1)
  changed()
end
return status
