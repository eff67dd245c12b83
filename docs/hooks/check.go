// May this mail go? Take Held into a program of your own, or try it by hand:
//
//	go build check.go && ./check tenant=s07 segment=lapsed stream=marketing 'key=<1@shop.example>'
//
// It ends with 0: send; or with 75: held, and the gate's answer is on standard output.
package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Answer is what the gate says of one message. TTL is in seconds.
type Answer struct {
	Answer string  `json:"answer"`
	Until  string  `json:"until"`
	TTL    float64 `json:"ttl"`
	Share  float64 `json:"share"`
	Pool   string  `json:"pool"`
}

// One client for all questions, so that connections are kept. Its time is for the whole of an answer.
var gate = &http.Client{
	Timeout:   200 * time.Millisecond,
	Transport: &http.Transport{MaxIdleConnsPerHost: 16},
}

// Held is the gate's answer where it holds such mail, else nil. Also nil when it gives no answer in time: then send.
// The key is one of the gate's with the scope check; empty where it wants none.
func Held(address string, key string, labels url.Values) *Answer {
	request, err := http.NewRequest(http.MethodGet, address+"/v1/check?"+labels.Encode(), nil)
	if err != nil {
		return nil
	}
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := gate.Do(request)
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	var answer Answer
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&answer); err != nil {
		return nil
	}
	if answer.Answer != "held" {
		return nil
	}
	return &answer
}

func main() {
	address := os.Getenv("MAILVANE_GATE")
	if address == "" {
		address = "http://127.0.0.1:8026"
	}
	labels := url.Values{}
	for _, word := range os.Args[1:] {
		name, value, _ := strings.Cut(word, "=")
		labels.Set(name, value)
	}
	if answer := Held(address, os.Getenv("MAILVANE_KEY"), labels); answer != nil {
		_ = json.NewEncoder(os.Stdout).Encode(answer)
		os.Exit(75)
	}
}
