-- Set aside jobs that this worker claimed and cannot even name.
--
-- KEYS: queue
-- ARGV: worker, then per job: id, try, reason
for i = 2, #ARGV, 3 do
  if holds(ARGV[1], ARGV[i], ARGV[i + 1]) then
    set_aside(KEYS[1], ARGV[i], ARGV[i + 2])
  end
end
return 0
