-- Renew the leases of everything one worker holds.
--
-- A lease that lapsed, unclaimed, is only reported: it may as well have been released by an end that
-- overtook this call. The caller, who knows, asks again with take_lapsed.
--
-- KEYS: the queues of these jobs
-- ARGV: worker, lease_ms, take_lapsed (1 or 0), then per job: the number of its queue, id, try
-- Returns the ids of jobs that another worker holds or has finished, and of those that lapsed.
local worker, lease_ms, take_lapsed = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local ends_at = now_ms() + lease_ms
local lost, lapsed = {}, {}
for i = 4, #ARGV, 3 do
  local queue, id = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
  local mine, holder = holds(worker, id, ARGV[i + 2])
  if mine and (holder or take_lapsed) then
    redis.call('SET', IN_PROGRESS .. id, worker, 'PX', lease_ms)
    read('ZADD', queue, 'XX', ends_at, id)  -- a lease holds whatever became of the queue
  elseif mine then
    lapsed[#lapsed + 1] = id
  else
    lost[#lost + 1] = id
  end
end
return {lost, lapsed}
