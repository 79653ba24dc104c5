<?php
// Every path answers alike; `ms` says how long that takes.

$received = strlen(file_get_contents('php://input'));
usleep(1000 * (int) ($_GET['ms'] ?? 0)); // the work that a request costs
header('Content-Type: application/json');
echo json_encode([
    'release' => $_SERVER['BATON_RELEASE'] ?? getenv('BATON_RELEASE') ?: 'none',
    'pid' => getmypid(),
    'conn' => $_SERVER['HTTP_X_CONN'] ?? null,
    'seq' => $_SERVER['HTTP_X_SEQ'] ?? null,
    'bytes' => $received,
]);
