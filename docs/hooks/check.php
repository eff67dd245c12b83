<?php

/**
 * May this mail go? Require this file and call held(), or try it by hand:
 *
 *   php check.php tenant=s07 segment=lapsed stream=marketing 'key=<1@shop.example>'
 *
 * It ends with 0: send; or with 75: held, and the gate's answer is on standard output.
 */

declare(strict_types=1);

namespace Mailvane;

/**
 * The gate's answer where it holds such mail, else null. Also null when it gives no answer in time: then send.
 *
 * @param array<string, string> $labels what is known of the message, and its key
 * @param string $key of the gate's, with the scope check
 */
function held(array $labels, string $gate = 'http://127.0.0.1:8026', string $key = ''): ?array
{
    $header = $key === '' ? [] : ["Authorization: Bearer $key"];
    // The time is for the connection, and for each read of an answer that comes in one piece.
    $patience = stream_context_create(['http' => ['timeout' => 0.2, 'follow_location' => 0, 'header' => $header]]);
    $text = @file_get_contents("$gate/v1/check?" . http_build_query($labels), false, $patience, 0, 65536);
    $answer = is_string($text) ? json_decode($text, true) : null;
    return is_array($answer) && ($answer['answer'] ?? '') === 'held' ? $answer : null;
}

if (PHP_SAPI === 'cli' && realpath($argv[0]) === __FILE__) {
    $labels = [];
    foreach (array_slice($argv, 1) as $word) {
        [$name, $value] = explode('=', $word, 2) + [1 => ''];
        $labels[$name] = $value;
    }
    $answer = held($labels, getenv('MAILVANE_GATE') ?: 'http://127.0.0.1:8026', getenv('MAILVANE_KEY') ?: '');
    if ($answer !== null) {
        echo json_encode($answer), "\n";
        exit(75);
    }
}
