-- Make an API key of these fields → 1, or 0 when another key has its id. A call whose reply was lost may come again.
if redis.call('EXISTS', KEY) == 1 then
  return redis.call('HEXISTS', SECRETS, digest)
end
redis.call('HSET', KEY, 'created_ms', integer(now), 'digests', digest, unpack(fields))
if ttl_ms ~= '' then
  redis.call('HSET', KEY, 'expires_ms', integer(now + ttl_ms))
end
redis.call('HSET', SECRETS, digest, id .. ' 0')
redis.call('ZADD', IDS, integer(now), id)
return 1
