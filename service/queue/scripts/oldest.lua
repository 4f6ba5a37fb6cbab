-- Age in ms of the oldest job that no worker has read, per lane; 0 when all are read.
-- ``LANES``: of each its stream, its order, and its jobs that wait or run, by the time they came.
local time = redis.call('TIME')
local now, ages = time[1] * 1000 + math.floor(time[2] / 1000), {}
local PAGE = 100

local function oldest_in(order, active)
  local from = redis.call('EXISTS', order) == 1 and 0
  while from do
    local page = redis.call('ZRANGE', active, from, from + PAGE - 1, 'WITHSCORES')
    for member = 1, #page, 2 do
      if redis.call('ZSCORE', order, page[member]) then
        return tonumber(page[member + 1])
      end
    end
    from = #page > 0 and from + PAGE
  end
  return now
end

for place = 1, #LANES, 3 do
  -- The first half of an entry's id is the Redis time at which it was added.
  local first = unread(LANES[place], group, 1)[1]
  local added = first and tonumber(string.match(first[1], '^%d+')) or now
  table.insert(ages, now - math.min(added, oldest_in(LANES[place + 1], LANES[place + 2])))
end
return ages
