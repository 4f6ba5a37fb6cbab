-- End a webhook, or with ``again_ms`` try it again then → 1, or 0 when the attempt is no longer the caller's.
if redis.call('HGET', RECORD, 'webhook_attempt') ~= attempt then
  return 0
end
if again_ms == '' then
  redis.call('ZREM', DUE, id)
  redis.call('ZREM', OWN, id)
  redis.call('DEL', RECORD)
else
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', DUE, string.format('%.0f', now + again_ms), id)
end
return 1
