# Sends jobs, one every 25 ms while not many wait, for as long as standard input is open, and prints how many.

require_relative "worker"

# More than a worker fetches, and few enough to be done soon.
WAITING_MAX = 40

n = 0
until IO.select([$stdin], nil, nil, 0.025)
  next if Sidekiq.redis { |redis| redis.llen("queue:default") } >= WAITING_MAX

  n += 1
  Work.perform_async(n, 50 + n * 79 % 100)
end
puts n
