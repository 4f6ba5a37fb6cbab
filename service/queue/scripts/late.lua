-- Milliseconds until a job's deadline, 0 when it has passed, nil without one. A late job that nobody has taken ends
-- here, and as when it is cancelled its entry stays as a tombstone; a running one ends at its worker's next report, or
-- here when there was none for a lease.
local status, deadline = unpack(redis.call('HMGET', JOB, 'status', 'deadline_at_ms'))
if not deadline then
  return false
end
if not late() then
  return tonumber(deadline) - now_ms() + 1
end
if status == 'queued' or (status == 'running' and late(lease_ms)) then
  fail_late()
end
return 0
