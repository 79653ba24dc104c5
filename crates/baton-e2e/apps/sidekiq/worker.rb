# A job that must be done once, and no more. Its work takes `ms`.

require "sidekiq"

# Debian's Sidekiq is older than its Redis library, which would say so with every job.
Redis.silence_deprecations = true

class Work
  include Sidekiq::Worker

  def perform(n, ms)
    sleep(ms / 1000.0)
    Sidekiq.redis { |redis| redis.hincrby("done", n, 1) }
  end
end
