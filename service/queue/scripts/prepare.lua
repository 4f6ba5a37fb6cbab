-- Make a stream's group, from its first entry on, if it has none, and forget consumers of workers long gone: idle for
-- at least ``idle_ms``. One with pending entries must stay: deleting it would lose them. A live one comes back with its
-- next read.
local made = redis.pcall('XGROUP', 'CREATE', STREAM, group, '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP') then
  return made
end
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', STREAM, group)) do
  local consumer = {}
  for field = 1, #row, 2 do
    consumer[row[field]] = row[field + 1]
  end
  if consumer.pending == 0 and consumer.idle > tonumber(idle_ms) then
    redis.call('XGROUP', 'DELCONSUMER', STREAM, group, consumer.name)
  end
end
