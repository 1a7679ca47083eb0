// What a client in Go does with a server: `client ADDRESS CASE`. Each case prints its outcome.
//
// TIDEGATE_CA, TIDEGATE_CERT and TIDEGATE_KEY name files for TLS, TIDEGATE_TOKEN_FILE one with a token.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "tidegate/v1"
)

const (
	model    = "recall"
	features = 3
	rowBytes = 4 * features
	drained  = 3000 // steps of the sequence that outlives a server
	ahead    = 32   // of them that may be unanswered
)

// codec makes gRPC take messages of the newer protobuf package.
type codec struct{}

func (codec) Marshal(v interface{}) ([]byte, error) { return proto.Marshal(v.(proto.Message)) }

func (codec) Unmarshal(data []byte, v interface{}) error {
	return proto.Unmarshal(data, v.(proto.Message))
}

func (codec) Name() string { return "proto" }

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func security() grpc.DialOption {
	ca := os.Getenv("TIDEGATE_CA")
	if ca == "" {
		return grpc.WithInsecure()
	}
	pem, err := os.ReadFile(ca)
	must(err)
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(pem)
	if cert := os.Getenv("TIDEGATE_CERT"); cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, os.Getenv("TIDEGATE_KEY"))
		must(err)
		config.Certificates = []tls.Certificate{pair}
	}
	return grpc.WithTransportCredentials(credentials.NewTLS(config))
}

func base() context.Context {
	file := os.Getenv("TIDEGATE_TOKEN_FILE")
	if file == "" {
		return context.Background()
	}
	token, err := os.ReadFile(file)
	must(err)
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+strings.TrimSpace(string(token)))
}

func open() *pb.StreamRequest {
	return &pb.StreamRequest{Request: &pb.StreamRequest_Open{Open: &pb.Open{Model: model, Trace: &pb.TraceSelection{None: true}}}}
}

func rows(count int, fill byte) []*pb.Tensor {
	data := make([]byte, rowBytes*count)
	for i := 0; i < len(data); i += 4 { // floats of about 0.5 to 2
		data[i], data[i+3] = fill, 0x3f
	}
	return []*pb.Tensor{{Type: pb.DataType_DATA_TYPE_FLOAT32, Shape: []int64{int64(count), features}, Data: data}}
}

func steps(first, count int) *pb.StreamRequest {
	return &pb.StreamRequest{Request: &pb.StreamRequest_Steps{
		Steps: &pb.Steps{FirstStep: uint64(first), Inputs: rows(count, byte(first))}}}
}

func closing() *pb.StreamRequest {
	return &pb.StreamRequest{Request: &pb.StreamRequest_Close{Close: &pb.Close{Count: 1}}}
}

// outcome is the code with which a call ended.
func outcome(err error) codes.Code {
	if err == io.EOF {
		return codes.OK
	}
	return status.Code(err)
}

// take sends single steps and a close, reads from a moment on, and counts the steps that were answered.
func take(client pb.TidegateClient, count int, late time.Duration) string {
	ctx, cancel := context.WithTimeout(base(), time.Minute)
	defer cancel()
	stream, err := client.Stream(ctx)
	must(err)
	go func() {
		must(stream.Send(open()))
		for step := 0; step < count; step++ {
			must(stream.Send(steps(step, 1)))
		}
		must(stream.Send(closing()))
		must(stream.CloseSend())
	}()
	time.Sleep(late)
	heard := 0
	for {
		message, err := stream.Recv()
		if err != nil {
			return fmt.Sprint(outcome(err), " ", heard)
		}
		if answers := message.GetAnswers(); answers != nil {
			heard += int(answers.Outputs[0].Shape[0])
		}
	}
}

// follower is one sequence that goes on after the loss of a server.
type follower struct {
	id, token string
	next      int // the step that is sent next
	answered  int
	sum       uint32 // of all answers
	told      bool
}

// attempt goes on with the sequence until it is at its end, or the stream is.
func (f *follower) attempt(client pb.TidegateClient) error {
	ctx, cancel := context.WithCancel(base())
	defer cancel()
	stream, err := client.Stream(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	first := open()
	if f.id != "" {
		first = &pb.StreamRequest{Request: &pb.StreamRequest_Resume{Resume: &pb.Resume{
			SequenceIds: []string{f.id}, ResumeToken: f.token, Answered: []uint64{uint64(f.answered)}, Trace: &pb.TraceSelection{None: true}}}}
	}
	if err := stream.Send(first); err != nil {
		return err
	}
	for f.answered < drained {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := f.hear(message); err != nil {
			return err
		}
		for f.next < drained && f.next < f.answered+ahead {
			if stream.Send(steps(f.next, 1)) != nil {
				break // Recv says why
			}
			f.next++
		}
	}
	return stream.Send(closing())
}

func (f *follower) hear(message *pb.StreamResponse) error {
	switch said := message.Response.(type) {
	case *pb.StreamResponse_Opened:
		f.id, f.next = said.Opened.SequenceIds[0], 0
		if said.Opened.ResumeToken != "" {
			f.token = said.Opened.ResumeToken
		}
		if len(said.Opened.NextSteps) > 0 {
			f.next = int(said.Opened.NextSteps[0])
		}
	case *pb.StreamResponse_Answers:
		f.count(said.Answers)
	case *pb.StreamResponse_Failure:
		return fmt.Errorf("%s", said.Failure.Error.Message)
	case *pb.StreamResponse_Released:
		return fmt.Errorf("%s", said.Released.Error.Message)
	}
	return nil
}

// count takes up the answers that are new.
func (f *follower) count(answers *pb.Answers) {
	output := answers.Outputs[0]
	size := len(output.Data) / int(output.Shape[0])
	for i := 0; i < int(output.Shape[0]); i++ {
		if int(answers.FirstStep)+i == f.answered {
			f.sum = crc32.Update(f.sum, crc32.IEEETable, output.Data[i*size:(i+1)*size])
			f.answered++
		}
	}
	if f.answered >= drained/10 && !f.told {
		f.told = true
		fmt.Println("streaming")
	}
}

func drain(client pb.TidegateClient) string {
	one, losses := &follower{}, 0
	for one.attempt(client) != nil && losses < 500 {
		losses++
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Sprintf("%d answers, sum %08x, lost a stream: %t", one.answered, one.sum, losses > 0)
}

func unary(client pb.TidegateClient) string {
	answer, err := client.ListModels(base(), &pb.ListModelsRequest{})
	if err != nil {
		return status.Code(err).String()
	}
	return answer.Models[0].Name
}

func deadline(client pb.TidegateClient) string {
	ctx, cancel := context.WithTimeout(base(), 200*time.Millisecond)
	defer cancel()
	stream, err := client.Stream(ctx)
	must(err)
	must(stream.Send(open()))
	for err == nil {
		_, err = stream.Recv()
	}
	return outcome(err).String()
}

func cancelled(client pb.TidegateClient) string {
	ctx, cancel := context.WithCancel(base())
	stream, err := client.Stream(ctx)
	must(err)
	must(stream.Send(open()))
	_, err = stream.Recv()
	must(err)
	cancel()
	for err == nil {
		_, err = stream.Recv()
	}
	return outcome(err).String()
}

func large(client pb.TidegateClient) string {
	answer, err := client.Predict(base(), &pb.PredictRequest{Model: model, Inputs: rows(100000, 0), Trace: &pb.TraceSelection{}})
	must(err)
	return fmt.Sprint(answer.Outputs[0].Shape[0], " ", len(answer.Trace.Data) > 1<<20)
}

func main() {
	largest := grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}), grpc.MaxCallRecvMsgSize(1<<30))
	connection, err := grpc.Dial(os.Args[1], security(), largest)
	must(err)
	defer connection.Close()
	client := pb.NewTidegateClient(connection)
	cases := map[string]func() string{
		"unary":    func() string { return unary(client) },
		"deadline": func() string { return deadline(client) },
		"cancel":   func() string { return cancelled(client) },
		"steps":    func() string { return take(client, 2000, 0) },
		"late":     func() string { return take(client, 5000, 500*time.Millisecond) },
		"large":    func() string { return large(client) },
		"drain":    func() string { return drain(client) },
	}
	fmt.Println(cases[os.Args[2]]())
}
