-- End a key for ever → 1, or 0 when there is none. It stays listed, with the time of its first revocation.
if redis.call('EXISTS', KEY) == 0 then
  return 0
end
redis.call('HSETNX', KEY, 'revoked_ms', integer(now))
return 1
