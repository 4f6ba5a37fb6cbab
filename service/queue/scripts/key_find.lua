-- Whose token it is → {how many keys there are, id or '', 1 if it is valid now, the key's fields}. PREFIX: of the key's
-- own hash, whose name only the secret tells. What it is makes no difference to what is read, and hardly to the time.
local found = redis.call('HGET', SECRETS, digest)
local id, ends = (found or ' 0'):match('^(%S*) (%d+)$')
local key = PREFIX .. id
local expires, revoked, used = unpack(redis.call('HMGET', key, 'expires_ms', 'revoked_ms', 'used_ms'))
local valid = found and not revoked and not passed(expires) and not passed(ends)
if valid and now - tonumber(used or 0) >= tonumber(touch_ms) then
  redis.call('HSET', key, 'used_ms', integer(now))
end
return {redis.call('ZCARD', IDS), id, valid and 1 or 0, redis.call('HGETALL', key)}
