# Sends jobs, one every 25 ms, for as long as standard input is open, and prints how many.

require_relative "worker"

n = 0
until IO.select([$stdin], nil, nil, 0.025)
  n += 1
  Work.perform_async(n, 50 + n * 79 % 100)
end
puts n
