-- Give back jobs that are leased to this worker without its knowledge: Redis ran its claim, but the
-- answer never arrived. They were never started, so neither the try nor the claim counts.
--
-- KEYS: queue, bell
-- ARGV: worker, lease_ms, scan_max, [id ...] that the worker does know
-- Returns how many.
local queue, bell, worker, lease_ms = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2])
local now = now_ms()
local known = {}
for i = 4, #ARGV do
  known[ARGV[i]] = true
end
-- A leased job's score is the end of its lease, so all of them are within one lease from now.
local leased = redis.call(
  'ZRANGEBYSCORE', queue, now, now + lease_ms, 'LIMIT', 0, tonumber(ARGV[3]))
local disowned = 0
for _, id in ipairs(leased) do
  if not known[id] and read('GET', IN_PROGRESS .. id) == worker then
    redis.call('ZADD', queue, 'XX', now, id)
    give_back_try(id)
    redis.call('DEL', IN_PROGRESS .. id)
    -- A count of more than one is that of a suspect, whose claim is not counted before it runs.
    if whole(read('GET', CLAIMS .. id)) == 1 then
      redis.call('DEL', CLAIMS .. id)
    end
    disowned = disowned + 1
  end
end
if disowned > 0 then
  read('ZADD', bell, 0, 'ring')
end
return disowned
