-- Have a running job that has done nothing yet made with other parameters → 'done' | 'late' | 'stale'.
-- ``record`` takes the place of the messages.Job that was accepted; ``changes``: what differs, for the client, as JSON.
local why = refused(epoch, entry)
if why then
  return why
end
redis.call('HSET', JOB, 'job', record, 'evaluations', evaluations, 'changes', changes)
return 'done'
