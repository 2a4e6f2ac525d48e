// Numbers of 32 bits.
alias Number = f32;
alias Four = vec4<f32>;
