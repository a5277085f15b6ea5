-- Renew the leases of everything one worker holds.
--
-- A lease that lapsed, unclaimed, is only reported: it may as well have been released by an end that
-- overtook this call. The caller, who knows, asks again with take_lapsed.
--
-- KEYS: the queues of these jobs
-- ARGV: worker, take_lapsed (1 or 0), then per job: the number of its queue, id, try, lease_ms
-- Returns the ids of jobs that another worker holds or has finished, and of those that lapsed.
local worker, take_lapsed = ARGV[1], ARGV[2] == '1'
local now = now_ms()
local lost, lapsed = {}, {}
for i = 3, #ARGV, 4 do
  local queue, id, lease_ms = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 3]
  local mine, holder = holds(worker, id, ARGV[i + 2])
  if mine and (holder or take_lapsed) then
    redis.call('SET', IN_PROGRESS .. id, worker, 'PX', lease_ms)
    -- A lease holds whatever became of the queue.
    read('ZADD', queue, 'XX', now + lease_ms, id)
  elseif mine then
    lapsed[#lapsed + 1] = id
  else
    lost[#lost + 1] = id
  end
end
return {lost, lapsed}
