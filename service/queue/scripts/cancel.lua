-- Cancel a job → its status, or nil when it is unknown. A queued one ends here and leaves its entry as a tombstone;
-- a running one is marked, and its worker hears of it at its next renewal, progress or checkpoint.
-- ``unknown``: given when its client was told that there is no such job. Nobody gets word of its end then, be it over
-- already, and what it costs is given back.
local status, owner, takes_ms = unpack(redis.call('HMGET', JOB, 'status', 'owner', 'takes_ms'))
if status and unknown then
  look_at_owned(owner or '')
  look_at_webhooks(owner or '')
  forget_webhook(owner or '')
  if takes_ms and redis.call('HEXISTS', owned(owner, 'used'), 'spent_until_ms') == 1 then
    redis.call('HINCRBY', owned(owner, 'used'), 'spent_until_ms', '-' .. takes_ms)
  end
  redis.call('HDEL', JOB, 'takes_ms')
end
if status == 'queued' then
  finish('cancelled')
  return 'cancelled'
end
if status == 'running' then
  redis.call('HSET', JOB, 'cancel', 1)
  changed()
end
return status
