// Numbers of 16 bits.
alias Number = f16;
alias Four = vec4<f16>;
