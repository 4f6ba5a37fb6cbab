-- Take the webhook that is due for longest, for ``lease_ms`` → {0, job, attempt, now, receiver, values of ``fields``}, or
-- {ms until one is due, -1 for none}. ``busy``: ' owner:ID receiver:HOST … ', of which none is taken.
-- The end of a job is written by whoever ends it; if that is a worker of a version before, the end is found here.
local KEPT_S, LOOK_MS = 7 * 86400, 60000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function is_busy(kind, name)
  return busy:find(' ' .. kind .. ':' .. name .. ' ', 1, true)
end

-- The host of a URL; what is written in several ways is several, which the bound of its owner holds.
local function receiver_of(url)
  return ((url or ''):lower():match('^%a+://([^/?#%s]*)') or ''):gsub(':%d+$', '')
end

local passed = 0
while true do
  local id, due = unpack(redis.call('ZRANGE', DUE, passed, passed, 'WITHSCORES'))
  if not id or due - now > 0 then
    return {id and due - now or -1}
  end
  local record, job = PREFIX .. id, JOBS .. id
  local status, finished = unpack(redis.call('HMGET', job, 'status', 'finished_ms'))
  local kept = redis.call('EXISTS', record) == 1
  if not kept and finished then
    kept = redis.call('COPY', job, record) == 1
    redis.call('EXPIRE', record, KEPT_S)
  end
  if kept then
    local url, owner = unpack(redis.call('HMGET', record, 'webhook', 'owner'))
    local receiver = receiver_of(url)
    if is_busy('receiver', receiver) or is_busy('owner', owner or '') then
      passed = passed + 1
    else
      redis.call('ZADD', DUE, string.format('%.0f', now + lease_ms), id)
      local attempt = redis.call('HINCRBY', record, 'webhook_attempt', 1)
      return {0, id, attempt, string.format('%.0f', now), receiver, redis.call('HMGET', record, unpack(fields))}
    end
  elseif status then  -- it has not ended yet
    redis.call('ZADD', DUE, string.format('%.0f', now + LOOK_MS), id)
  else  -- nobody has delivered anything for as long as it is kept
    redis.call('ZREM', DUE, id)
  end
end
