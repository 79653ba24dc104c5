bind "tcp://127.0.0.1:#{ENV.fetch("PORT", 8080)}"
threads 8, 8
