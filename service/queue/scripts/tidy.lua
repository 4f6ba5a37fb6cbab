-- Forget consumers of workers long gone. KEYS 1 stream. ARGV 1 group, 2 least idle time in ms.
-- One with pending entries must stay: deleting it would lose them. A live one comes back with its next read.
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for field = 1, #row, 2 do
    consumer[row[field]] = row[field + 1]
  end
  if consumer.pending == 0 and consumer.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
  end
end
